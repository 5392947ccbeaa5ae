"""The use cases of folders as archives: one out of a workspace, or into it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain

from app.agent.protocol import FILE_PIECE, ArchiveFormat
from app.core.ahead import ahead
from app.core.errors import AgentUnavailable
from app.core.files.client import FileClient
from app.core.files.model import Unpacked
from app.core.files.transfers import Transfers
from app.core.reach import Reach, Workspaces

SHORT_MOST = 10_000
"""Pieces of an archive that are shorter than they may be, as after some seconds of an agent's work, and at the end."""

LONGEST = 3_600.0
"""s in which an archive is unpacked."""


class Trees:
    """The folders of all workspaces. Every method raises as `Workspaces.ask`, and `FileRefused`."""

    def __init__(self, workspaces: Workspaces, client: FileClient, clock: Callable[[], float] = time.time) -> None:
        self._workspaces = workspaces
        self._client = client
        self._transfers = Transfers(workspaces, client)
        self._clock = clock

    @contextmanager
    def packed(self, uuid: str, path: str, how: ArchiveFormat, reach: Reach) -> Iterator[Iterator[bytes]]:
        """The bytes of an archive with what is in a folder, in pieces, of which the first is there. One that raises is
        not whole."""
        tree = self._workspaces.ask(uuid, reach, lambda agent: self._client.pack(agent, path, how))
        try:
            first = self._piece(uuid, tree, 0)
            with closing(ahead(self._following(uuid, tree, len(first)))) as following:
                yield chain([first], following)
        finally:
            self._transfers.forget(uuid, partial(self._client.drop_tree, tree=tree))

    def unpack(self, uuid: str, path: str, how: ArchiveFormat, pieces: Iterator[bytes], reach: Reach) -> Unpacked:
        """Unpack an archive into a folder: all of it or nothing. What has the same names is replaced."""
        upload = self._workspaces.ask(uuid, reach, lambda agent: self._client.begin_tree(agent, path))
        try:
            size = self._transfers.send(uuid, upload, pieces)
            ask = partial(self._client.unpack, upload=upload, path=path, how=how, size=size)
            ends = self._clock() + LONGEST
            while (began := self._clock()) < ends:
                if (unpacked := self._transfers.ask_on(uuid, ask)) is not None:
                    return unpacked
                self._workspaces.pace(began)
            raise AgentUnavailable(f"The agent of session {uuid} did not unpack the archive in time.")
        finally:
            self._transfers.forget(uuid, partial(self._client.drop_tree, tree=upload))

    def _following(self, uuid: str, tree: str, offset: int) -> Iterator[bytes]:
        short = 0
        while piece := self._piece(uuid, tree, offset):
            yield piece
            offset += len(piece)
            short += len(piece) < FILE_PIECE
            if short > SHORT_MOST:
                raise AgentUnavailable(f"The agent of session {uuid} makes the archive too slowly.")

    def _piece(self, uuid: str, tree: str, offset: int) -> bytes:
        return self._transfers.ask_on(uuid, partial(self._client.packed, tree=tree, offset=offset))
