"""The use cases of files in workspaces: list, read, write, delete, move."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from itertools import chain

from app.agent.protocol import FILE_PIECE
from app.core.agents.agent import Agent
from app.core.ahead import ahead, begun
from app.core.files.client import FileClient
from app.core.files.model import Entry, Listing, NewFile
from app.core.files.transfers import Transfers
from app.core.reach import Reach, Workspaces


class Files:
    """The files of all workspaces. Every method raises as `Workspaces.ask`, and `FileRefused`."""

    def __init__(self, workspaces: Workspaces, client: FileClient) -> None:
        self._workspaces = workspaces
        self._client = client
        self._transfers = Transfers(workspaces, client)

    def listing(self, uuid: str, path: str, depth: int, glob: str, limit: int, cursor: str, reach: Reach) -> Listing:
        """A page of what is in a folder, `depth` levels deep, by name; with depth 0 the entry itself. `glob` is
        matched by a path below the folder, or a name."""

        def ask(agent: Agent) -> Listing:
            return self._client.listing(agent, path, depth, glob, limit, cursor)

        return self._workspaces.ask(uuid, reach, ask)

    def entry(self, uuid: str, path: str, reach: Reach) -> Entry:
        """The file at a path."""
        return self._workspaces.ask(uuid, reach, lambda agent: self._client.entry(agent, path))

    def read(self, uuid: str, path: str, found: Entry, offset: int, end: int) -> Iterator[bytes]:
        """The bytes of the file `found` there from `offset` to before `end`, in pieces, of which the first is there.
        Raises `FileRefused` once it is replaced or cut short; one that only grows is read to the end that it had."""
        pieces = begun(self._pieces(uuid, path, found, offset, end))
        return ahead(pieces) if end - offset > FILE_PIECE else pieces

    def write(self, uuid: str, wanted: NewFile, pieces: Iterator[bytes], reach: Reach) -> tuple[Entry, bool]:
        """Write a whole file, of pieces of `FILE_PIECE` bytes but for the last: all of it or nothing. The entry, and
        whether it is new."""
        first = next(pieces, b"")
        if len(first) < FILE_PIECE:
            # What was done already would not be as the caller wants to find it.
            again = wanted.etags is None and not wanted.new
            return self._workspaces.ask(
                uuid, reach, lambda agent: self._client.write(agent, wanted, first), again=again
            )
        upload = self._workspaces.ask(uuid, reach, lambda agent: self._client.begin(agent, wanted))
        try:
            size = self._transfers.send(uuid, upload, chain([first], pieces))
            return self._workspaces.ask_on(uuid, lambda agent: self._client.finish(agent, upload, wanted, size))
        except BaseException:
            self._transfers.forget(uuid, partial(self._client.drop, upload=upload))
            raise

    def delete(self, uuid: str, path: str, etags: Collection[str] | None, reach: Reach) -> None:
        """Delete a file, a link, or a folder with all in it."""
        self._workspaces.ask(uuid, reach, lambda agent: self._client.delete(agent, path, etags), again=False)

    def move(self, uuid: str, path: str, target: str, reach: Reach) -> Entry:
        """Move a file, a link or a folder; nothing is overwritten."""
        return self._workspaces.ask(uuid, reach, lambda agent: self._client.move(agent, path, target), again=False)

    def make_folder(self, uuid: str, path: str, reach: Reach) -> tuple[Entry, bool]:
        """Make a folder, and those above it; whether it is new."""
        return self._workspaces.ask(uuid, reach, lambda agent: self._client.make_folder(agent, path))

    def _pieces(self, uuid: str, path: str, found: Entry, offset: int, end: int) -> Iterator[bytes]:
        while offset < end:
            most = min(FILE_PIECE, end - offset)
            ask = partial(self._client.read, path=path, etag=found.etag, offset=offset, most=most)
            data = self._transfers.ask_on(uuid, ask)
            yield data
            # Less is the end: an agent that gives little at a time is not asked on.
            if len(data) < most:
                return
            offset += len(data)
