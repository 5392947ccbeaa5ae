"""What passes between a call and an agent in pieces, so that a process holds little of each, and no agent is waited for
long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import TypeVar

from app.core.agents.agent import Agent
from app.core.ahead import ahead
from app.core.errors import SessionError
from app.core.files.client import FileClient
from app.core.reach import Workspaces

T = TypeVar("T")

PATIENCE = 5.0
"""s in which each further piece is asked for again: an agent that was killed has a successor in less."""


class Transfers:
    """Pieces to agents, and further requests about them. Every method raises as `Workspaces.ask_on`, and
    `FileRefused`."""

    def __init__(self, workspaces: Workspaces, client: FileClient) -> None:
        self._workspaces = workspaces
        self._client = client

    def ask_on(self, uuid: str, ask: Callable[[Agent], T]) -> T:
        """What the agent answers about a further piece, which is activity."""
        self._workspaces.note(uuid)
        return self._workspaces.ask_on(uuid, ask, PATIENCE)

    def send(self, uuid: str, upload: str, pieces: Iterator[bytes]) -> int:
        """Send the pieces of an upload; how many bytes they have."""
        size = 0
        with closing(ahead(pieces)) as following:
            for piece in following:
                self.ask_on(uuid, partial(self._client.append, upload=upload, offset=size, data=piece))
                size += len(piece)
        return size

    def forget(self, uuid: str, drop: Callable[[Agent], None]) -> None:
        """Tell the agent that nothing more comes, if it can be told."""
        with suppress(SessionError):
            self._workspaces.ask_on(uuid, drop)
