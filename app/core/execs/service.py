"""The use cases of commands in workspaces: run one, wait for it, follow it, read its output, type into its terminal,
end it.

A workspace keeps what it knows of its commands on its volume, so each call needs it awake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from app.agent.protocol import Window
from app.core.ahead import begun
from app.core.execs.client import READ_MOST, ExecClient
from app.core.execs.model import Exec, NewExec, Piece
from app.core.reach import Reach, WaitingAsk, Workspaces


class Execs:
    """The commands of all sessions. Every method raises as `Workspaces.ask`, and all but `begin` and `known` raise
    `ExecNotFound`."""

    def __init__(self, workspaces: Workspaces, client: ExecClient) -> None:
        self._workspaces = workspaces
        self._client = client

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

    def type_in(self, uuid: str, id_: str, at: int, data: bytes, reach: Reach) -> int:
        """Type data into a command's terminal after `at` bytes of input; returns how many bytes came by then, fewer
        where there is no more room. Raises `InputMoved` and `NoTerminal` too."""
        return self._workspaces.ask(uuid, reach, partial(self._client.type_in, id_=id_, at=at, data=data))

    def resize(self, uuid: str, id_: str, window: Window, reach: Reach) -> None:
        """Give a command's terminal another size. Raises `NoTerminal` too."""
        self._workspaces.ask(uuid, reach, partial(self._client.resize, id_=id_, window=window))

    def known(self, uuid: str, reach: Reach) -> Sequence[Exec]:
        """What runs and ran, newest first, without the output."""
        return self._workspaces.ask(uuid, reach, self._client.known)

    def read(self, uuid: str, id_: str, stream: str, offset: int, end: int, reach: Reach) -> Iterator[bytes]:
        """The bytes of a stream from `offset` to before `end`, in pieces, of which the first is there; fewer where it
        is shorter."""
        return begun(self._pieces(uuid, id_, stream, offset, end, reach))

    def follow(
        self, uuid: str, id_: str, seen: Mapping[str, int], reach: Reach, seconds: float, quiet: float
    ) -> Iterator[Piece]:
        """The output after so many bytes of each stream as it comes, until the command has ended or for so long; after
        `quiet` seconds without any a piece without text. The session is not woken for the next piece."""
        wait = min(quiet, self._client.longest_wait)
        return self._workspaces.follow(
            uuid,
            reach,
            seconds,
            partial(self._client.piece, id_=id_, seen=seen, wait=0.0),
            lambda piece: partial(self._client.piece, id_=id_, seen=piece.following, wait=wait),
        )

    def _pieces(self, uuid: str, id_: str, stream: str, offset: int, end: int, reach: Reach) -> Iterator[bytes]:
        while offset < end:
            ask = partial(self._client.read, id_=id_, stream=stream, offset=offset, most=min(READ_MOST, end - offset))
            data = self._workspaces.ask(uuid, reach, ask)
            if not data:
                return
            yield data
            offset += len(data)

    def _awaited(self, uuid: str, reach: Reach, wait: float, ask: WaitingAsk[Exec], *, again: bool = True) -> Exec:
        """What the agent answers, once the command has ended or so many seconds after the call."""
        return self._workspaces.awaited(uuid, reach, wait, ask, self._until_its_end, again=again)

    def _until_its_end(self, found: Exec) -> WaitingAsk[Exec] | None:
        """What waits for the command's end; None if it has ended."""
        return (lambda agent, left: self._client.show(agent, found.id, left)) if found.running else None
