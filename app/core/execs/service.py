"""The use cases of commands in workspaces: run one, wait for it, follow it, read its output, end it.

A workspace keeps what it knows of its commands on its volume, so each call needs it awake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from app.core.agents.agent import Agent
from app.core.errors import AgentUnavailable, Asleep, IllegalState, WakeLate
from app.core.execs.client import READ_MOST, ExecClient
from app.core.execs.model import Exec, NewExec, Piece
from app.core.prompts.inbox import Inbox
from app.core.service import SessionService
from app.core.sessions.model import UP, Status
from app.core.sessions.signals import Activity

T = TypeVar("T")

POLL = 0.05
"""s between two looks for an agent: nothing tells that one has come."""

RETRY = 0.25
"""s between two requests to an agent at least, where the first brought nothing: one may answer at once, whatever it was
asked to wait for."""


@dataclass(frozen=True)
class Reach:
    """How a call gets to a workspace: whether it wakes it, and for how long (s) it waits for it."""

    wake: bool
    seconds: float
    request_id: str = ""


class Execs:
    """The commands of all sessions. Every method raises `SessionNotFound`; `IllegalState` for a session that can't run;
    `Asleep` for one that sleeps and is not to be woken; `WakeLate` for one that is not up in time; `BudgetExceeded`;
    `AgentUnavailable`. All but `begin` and `known` raise `ExecNotFound`."""

    def __init__(
        self,
        sessions: SessionService,
        inbox: Inbox,
        client: ExecClient,
        activity: Activity,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sessions = sessions
        self._inbox = inbox
        self._client = client
        self._activity = activity
        self._clock = clock
        self._pause = pause

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
        return self._ask(uuid, reach, self._client.known)

    def read(self, uuid: str, id_: str, stream: str, offset: int, end: int, reach: Reach) -> Iterator[bytes]:
        """The bytes of a stream from `offset` to before `end`, in pieces; fewer where it is shorter."""
        while offset < end:
            ask = partial(self._client.read, id_=id_, stream=stream, offset=offset, most=min(READ_MOST, end - offset))
            data = self._ask(uuid, reach, ask)
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
        piece = self._ask(uuid, reach, lambda agent: self._client.piece(agent, id_, seen, 0.0))
        yield piece
        while piece.more and (began := self._clock()) < deadline:
            seen = piece.following
            wait = min(quiet, self._client.longest_wait)
            piece = self._client.piece(self._agent_up(uuid), id_, seen, wait)
            yield piece
            if not any(piece.texts.values()):
                self._pace(began)

    def _awaited(
        self, uuid: str, reach: Reach, wait: float, ask: Callable[[Agent, float], Exec], *, again: bool = True
    ) -> Exec:
        """What the agent answers, once the command has ended or so many seconds after the call."""
        deadline = self._clock() + wait
        found = self._ask(uuid, reach, lambda agent: ask(agent, deadline - self._clock()), again=again)
        while found.running and (left := deadline - (began := self._clock())) > 0:
            with suppress(AgentUnavailable):
                found = self._client.show(self._agent_up(uuid), found.id, left)
            if found.running:
                self._pace(began)
        return found

    def _pace(self, began: float) -> None:
        """Let a request that brought nothing take `RETRY` seconds since it `began`."""
        self._pause(max(0.0, RETRY - (self._clock() - began)))

    def _ask(self, uuid: str, reach: Reach, ask: Callable[[Agent], T], *, again: bool = True) -> T:
        """What the session's agent answers. One that does not is asked `again` while the call may wait: the workspace
        may have been about to sleep."""
        deadline = self._clock() + reach.seconds
        while True:
            agent = self._reached(uuid, reach, deadline)
            self._activity.note(uuid, "exec", self._clock())
            try:
                return ask(agent)
            except AgentUnavailable:
                if not again or self._clock() >= deadline:
                    raise
                self._pause(RETRY)

    def _reached(self, uuid: str, reach: Reach, deadline: float) -> Agent:
        """The session's agent once there is one; the session is woken for it."""
        while True:
            record = self._sessions.get(uuid)
            if record.status is Status.FAILED:
                raise IllegalState(f"The workspace of session {uuid} did not start: {record.reason}")
            if record.status in UP:
                agent = self._inbox.agent(uuid)
                if agent is not None:
                    return agent
            elif not reach.wake:
                raise Asleep(uuid)
            else:
                self._sessions.wake(uuid, reach.request_id, asked=True)
            if self._clock() >= deadline:
                raise WakeLate(uuid)
            self._pause(POLL)

    def _agent_up(self, uuid: str) -> Agent:
        """The agent of a session whose command runs. Raises `IllegalState` if the session does not run any more."""
        record = self._sessions.get(uuid)
        if record.status not in UP:
            raise IllegalState(
                f"Session {uuid} is `{record.status}`: its command was ended. The command itself, asked for by its id, "
                "wakes the session and says how far it came."
            )
        agent = self._inbox.agent(uuid)
        if agent is None:
            raise AgentUnavailable(f"The agent of session {uuid} is starting.")
        return agent
