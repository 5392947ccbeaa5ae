"""The use cases of commands in workspaces: run one, wait for it, follow it, read its output, end it.

A workspace keeps what it knows of its commands on its volume, so each call needs it awake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from app.core.agents.agent import Agent
from app.core.errors import AgentUnavailable
from app.core.execs.client import READ_MOST, ExecClient
from app.core.execs.model import Exec, NewExec, Piece
from app.core.reach import Reach, Workspaces


class Execs:
    """The commands of all sessions. Every method raises as `Workspaces.ask`, and all but `begin` and `known` raise
    `ExecNotFound`."""

    def __init__(self, workspaces: Workspaces, client: ExecClient, clock: Callable[[], float] = time.time) -> None:
        self._workspaces = workspaces
        self._client = client
        self._clock = clock

    def begin(self, uuid: str, wanted: NewExec, reach: Reach, wait: float) -> Exec:
        """Run a command, and wait so long (s) for its end. The same id again answers the same command. Raises
        `InvalidRequest`, `ExecIdReused` and `TooManyExecs` too."""
        return self._awaited(uuid, reach, wait, lambda agent, left: self._client.begin(agent, wanted, left))

    def show(self, uuid: str, id_: str, reach: Reach, wait: float = 0.0) -> Exec:
        """A command with its output, once it has ended or after so many seconds."""
        return self._awaited(uuid, reach, wait, lambda agent, left: self._client.show(agent, id_, left))

    def kill(self, uuid: str, id_: str, signal: str | None, reach: Reach, wait: float) -> Exec:
        """Send a command a signal, once at most, or without one have it end; then as `show`."""
        kill = partial(self._client.kill, id_=id_, signal=signal)
        return self._awaited(uuid, reach, wait, lambda agent, left: kill(agent, wait=left), again=signal is None)

    def known(self, uuid: str, reach: Reach) -> Sequence[Exec]:
        """What runs and ran, newest first, without the output."""
        return self._workspaces.ask(uuid, reach, self._client.known)

    def read(self, uuid: str, id_: str, stream: str, offset: int, end: int, reach: Reach) -> Iterator[bytes]:
        """The bytes of a stream from `offset` to before `end`, in pieces; fewer where it is shorter."""
        while offset < end:
            ask = partial(self._client.read, id_=id_, stream=stream, offset=offset, most=min(READ_MOST, end - offset))
            data = self._workspaces.ask(uuid, reach, ask)
            if not data:
                return
            yield data
            offset += len(data)

    def follow(
        self, uuid: str, id_: str, seen: Mapping[str, int], reach: Reach, seconds: float, quiet: float
    ) -> Iterator[Piece]:
        """The output after so many bytes of each stream as it comes, until the command has ended or for so long; after
        `quiet` seconds without any a piece without text. The session is not woken for the next piece."""
        deadline = self._clock() + seconds
        piece = self._workspaces.ask(uuid, reach, lambda agent: self._client.piece(agent, id_, seen, 0.0))
        yield piece
        while piece.more and (began := self._clock()) < deadline:
            wait = min(quiet, self._client.longest_wait)
            piece = self._workspaces.ask_on(uuid, partial(self._client.piece, id_=id_, seen=piece.following, wait=wait))
            yield piece
            if not any(piece.texts.values()):
                self._workspaces.pace(began)

    def _awaited(
        self, uuid: str, reach: Reach, wait: float, ask: Callable[[Agent, float], Exec], *, again: bool = True
    ) -> Exec:
        """What the agent answers, once the command has ended or so many seconds after the call."""
        deadline = self._clock() + wait
        found = self._workspaces.ask(uuid, reach, lambda agent: ask(agent, deadline - self._clock()), again=again)
        while found.running and (left := deadline - (began := self._clock())) > 0:
            with suppress(AgentUnavailable):
                found = self._workspaces.ask_on(uuid, partial(self._client.show, id_=found.id, wait=left))
            if found.running:
                self._workspaces.pace(began)
        return found
