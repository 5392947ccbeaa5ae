"""How calls reach workspaces: a session that sleeps is woken, and its agent is asked once it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from app.core.agents.agent import Agent
from app.core.errors import AgentUnavailable, Asleep, IllegalState, WakeLate
from app.core.prompts.inbox import Inbox
from app.core.service import SessionService
from app.core.sessions.model import UP, Status
from app.core.sessions.signals import Activity

T = TypeVar("T")

WaitingAsk = Callable[[Agent, float], T]
"""A request to an agent that waits there for so long (s)."""


class Part(Protocol):
    """A part of what grows in a workspace."""

    @property
    def empty(self) -> bool:
        """Whether it brings nothing."""

    @property
    def more(self) -> bool:
        """Whether there may be more."""


P = TypeVar("P", bound=Part)

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


class Workspaces:
    """The agents of all sessions, for calls that are activity of the kind `signal`."""

    def __init__(
        self,
        sessions: SessionService,
        inbox: Inbox,
        activity: Activity,
        signal: str,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sessions = sessions
        self._inbox = inbox
        self._activity = activity
        self._signal = signal
        self._clock = clock
        self._pause = pause

    def ask(self, uuid: str, reach: Reach, ask: Callable[[Agent], T], *, again: bool = True) -> T:
        """What the session's agent answers. One that does not is asked `again` while the call may wait: the workspace
        may have been about to sleep. Raises `SessionNotFound`; `IllegalState` for a session that can't run; `Asleep`
        for one that sleeps and is not to be woken; `WakeLate` for one that is not up in time; `BudgetExceeded`;
        `AgentUnavailable`."""
        deadline = self._clock() + reach.seconds

        def attempt() -> T:
            agent = self._reached(uuid, reach, deadline)
            self.note(uuid)
            return ask(agent)

        return self._answered(attempt, deadline, again)

    def ask_on(self, uuid: str, ask: Callable[[Agent], T], seconds: float = 0.0) -> T:
        """What the agent answers to a further request of a call, which is no activity by itself, and wakes nothing; one
        that does not answer, or is being replaced, is asked again for so long. Raises `IllegalState` if the session
        does not run any more, and `AgentUnavailable`."""
        return self._answered(lambda: ask(self._up(uuid)), self._clock() + seconds)

    def awaited(
        self,
        uuid: str,
        reach: Reach,
        wait: float,
        ask: WaitingAsk[T],
        further: Callable[[T], WaitingAsk[T] | None],
        *,
        again: bool = True,
    ) -> T:
        """What the agent answers once there is nothing more to wait for, or so many seconds after the call: to `ask`,
        which is asked `again` as by the method of that name, and then to the `further` request that an answer leads
        to."""
        deadline = self._clock() + wait
        found = self.ask(uuid, reach, lambda agent: ask(agent, deadline - self._clock()), again=again)
        while (look := further(found)) and (left := deadline - (began := self._clock())) > 0:
            with suppress(AgentUnavailable):
                found = self.ask_on(uuid, _for(left, look))
            if further(found):
                self.pace(began)
        return found

    def follow(
        self,
        uuid: str,
        reach: Reach,
        seconds: float,
        ask: Callable[[Agent], P],
        further: Callable[[P], Callable[[Agent], P]],
    ) -> Iterator[P]:
        """Part by part of what grows, until there is no more or for so many seconds: the answers to `ask`, and to the
        `further` request that each leads to. The session is not woken for the next part."""
        deadline = self._clock() + seconds
        part = self.ask(uuid, reach, ask)
        yield part
        while part.more and (began := self._clock()) < deadline:
            part = self.ask_on(uuid, further(part))
            yield part
            if part.empty:
                self.pace(began)

    def note(self, uuid: str) -> None:
        """Note that a call is at work there; `ask` does so by itself."""
        self._activity.note(uuid, self._signal, self._clock())

    def pace(self, began: float) -> None:
        """Let a request that brought nothing take `RETRY` seconds since it `began`."""
        self._pause(max(0.0, RETRY - (self._clock() - began)))

    def _answered(self, ask: Callable[[], T], deadline: float, again: bool = True) -> T:
        """What `ask` brings, asked `again` until the deadline where the agent does not answer."""
        while True:
            try:
                return ask()
            except AgentUnavailable:
                if not again or self._clock() >= deadline:
                    raise
                self._pause(RETRY)

    def _up(self, uuid: str) -> Agent:
        """The agent of a session that runs."""
        record = self._sessions.get(uuid)
        if record.status not in UP:
            raise IllegalState(
                f"Session {uuid} is `{record.status}`, so what the call began there was ended. Repeat the call, which "
                "wakes the session."
            )
        agent = self._inbox.agent(uuid)
        if agent is None:
            raise AgentUnavailable(f"The agent of session {uuid} is starting.")
        return agent

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


def _for(seconds: float, ask: WaitingAsk[T]) -> Callable[[Agent], T]:
    """The request that waits for so long."""
    return lambda agent: ask(agent, seconds)
