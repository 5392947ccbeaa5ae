"""Between the inbox and the agents: handing prompts over.

A courier does it, and the caller's own thread where a caller waits for the answer of a workspace that is awake:
then no queue stands in between. Nothing here waits for a model. A prompt is delivered when the agent has it on its
disk; what becomes of it the agent reports to the gateway.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from app.sessions import keys, queue
from app.sessions.agents import Agent
from app.sessions.core import Core
from app.sessions.errors import AgentNotReady, AgentRefused, AgentUnavailable, SessionNotFound
from app.sessions.inbox import Message
from app.sessions.model import UP, Record, Status

log = logging.getLogger(__name__)

MOST_AT_ONCE = 100
"""Prompts handed over in one go; the rest is left to the next task, so that none lasts for ever."""

TRIES = 5
FIRST_PAUSE = 0.1
"""s before an agent that is not ready is tried again, doubled each time: 1.5 s in all. It calls as soon as its socket
is open, maybe before the cluster's network lets us in."""

NOT_READY = 2.0
"""s after which it is not tried again at once."""


class Deliveries:
    """Hands prompts to agents. Times are seconds since the epoch."""

    def __init__(
        self, core: Core, clock: Callable[[], float] = time.time, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._core = core
        self._inbox = core.inbox
        self._clock = clock
        self._pause = pause

    def deliver(self, uuid: str, most: int = MOST_AT_ONCE) -> None:
        """Hand the session's prompts to its agent, in order, until none waits, the agent does not answer, or it has
        had `most` of them. One that was told to take no more is called back first, where its stop was broken off.

        Only the holder of the lease delivers, and only the prompt at the head: that keeps the order. What is left
        has a new task made for it: so has a prompt, or an agent, that came too late for the holder's last look
        and whose own task found the lease taken.
        """
        with self._core.leases.hold(keys.DELIVERY_LEASE.format(uuid=uuid)) as held:
            if not held:
                return
            self._deliver_most(uuid, most)
        if self._agent(uuid) is not None and self._inbox.waiting(uuid):
            self._core.tasks.send(queue.DELIVER, uuid)

    def _deliver_most(self, uuid: str, most: int) -> None:
        deadline = self._clock() + self._core.settings.short_task_limit / 2
        for _ in range(most):
            if self._clock() > deadline:
                return
            agent, message = self._agent(uuid), self._inbox.head(uuid)
            if message is None or agent is None:
                return
            try:
                said = self._hand_over(agent, message)
            except AgentRefused as error:
                self._inbox.finish(uuid, message.id, reason=str(error), now=self._clock())
            except AgentUnavailable as error:
                log.warning("prompts wait: %s", error, extra={"uuid": uuid})
                self._inbox.agent_failed(agent, self._clock())
                return
            else:
                self._inbox.delivered(uuid, message.id, self._clock())
                self._note_end(uuid, message.id, said)

    def _agent(self, uuid: str) -> Agent | None:
        """The agent, unless it failed a moment ago. One of a session that sleeps is being stopped, and left alone."""
        try:
            record = self._core.store.get(uuid)
        except SessionNotFound:
            return None
        if record.status not in UP:
            return None
        agent = self._inbox.agent(uuid) or self._called_back(record)
        return agent if agent is not None and agent.retry_at <= self._clock() else None

    def _called_back(self, record: Record) -> Agent | None:
        """The agent that was told to take nothing more, for a stop that was broken off; now it takes prompts again."""
        agent = self._inbox.leaving_agent(record.uuid)
        started = record.started_at or record.status is Status.ACTIVE
        if agent is None or not started or agent.retry_at > self._clock():
            return None
        try:
            self._core.agents.resume(agent, record.generation)
        except AgentRefused as error:
            log.warning("not called back, takes prompts after a while: %s", error, extra={"uuid": record.uuid})
        except AgentUnavailable as error:
            log.warning("not called back yet: %s", error, extra={"uuid": record.uuid})
            self._inbox.agent_failed(agent, self._clock())
            return None
        self._inbox.agent_stays(record.uuid, record.generation, self._clock())
        return self._inbox.agent(record.uuid)

    def _hand_over(self, agent: Agent, message: Message) -> Mapping[str, Any]:
        deadline = self._clock() + NOT_READY
        for attempt in range(TRIES - 1):
            try:
                return self._core.agents.chat(agent, message.id, message.text)
            except AgentNotReady:
                # One that takes its time to say so has had it.
                if self._clock() > deadline:
                    raise
                self._pause(FIRST_PAUSE * 2**attempt)
        return self._core.agents.chat(agent, message.id, message.text)

    def _note_end(self, uuid: str, message_id: str, said: Mapping[str, Any]) -> None:
        """An agent that had the prompt before says how it ended, where its own report was lost with Redis."""
        response, reason = said.get("response"), said.get("reason")
        if said.get("status") == "processed" and isinstance(response, dict):
            self._inbox.finish(uuid, message_id, response=response, now=self._clock())
        elif said.get("status") == "failed":
            self._inbox.finish(uuid, message_id, reason=str(reason or "It failed."), now=self._clock())
