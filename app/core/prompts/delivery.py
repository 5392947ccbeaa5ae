"""Delivers prompts from the inbox to the agents.

Delivery workers do it, and the API's own thread for a caller that waits and a workspace that is awake. Nothing here
waits for a model: a prompt is delivered once the agent has it on its disk. The agent reports its result to the gateway.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from app.agent.protocol import Failure
from app.core.agents.agent import Agent
from app.core.errors import AgentNotReady, AgentRefused, AgentUnavailable, SessionNotFound
from app.core.prompts.agent_client import AgentClient
from app.core.prompts.inbox import Inbox, Prompt
from app.core.redis import keys, task_queue
from app.core.redis.leases import Leases
from app.core.redis.task_queue import TaskQueue
from app.core.sessions.model import UP, Record, Status
from app.core.sessions.store import SessionStore
from app.process import tracing

log = logging.getLogger(__name__)

MOST_AT_ONCE = 100
"""Prompts in one delivery; the next task takes the rest, so that no task lasts for ever."""

TRIES = 5
FIRST_PAUSE = 0.1
"""s before an agent that is not ready is tried again, doubled each time: 1.5 s in all. An agent registers as soon as
its socket is open, maybe before the cluster's network connects to it."""

NOT_READY = 2.0
"""s after which no further try follows at once."""


class Delivery:
    """Hands prompts to agents. Times are seconds since the epoch; `limit` (s) bounds one call."""

    def __init__(
        self,
        store: SessionStore,
        inbox: Inbox,
        agents: AgentClient,
        leases: Leases,
        tasks: TaskQueue,
        limit: float,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._agents = agents
        self._leases = leases
        self._tasks = tasks
        self._limit = limit
        self._clock = clock
        self._pause = pause

    def deliver(self, uuid: str, most: int = MOST_AT_ONCE) -> None:
        """Hand the session's prompts to its agent, in order, until none waits, the agent does not answer, or `most`
        were delivered. An agent whose stop was broken off is resumed first.

        Only the holder of the lease delivers, and only the prompt at the head: that keeps the order. If prompts wait
        afterwards, another task is enqueued: a prompt or an agent may have come after the holder's last check, and its
        own task found the lease taken.
        """
        with self._leases.hold(keys.DELIVERY_LEASE.format(uuid=uuid)) as held:
            if not held:
                return
            self._deliver_most(uuid, most)
        if self._agent(uuid) is not None:
            self.request(uuid)

    def request(self, uuid: str, request_id: str = "") -> None:
        """Have a delivery worker hand over the session's prompts, if any wait, or resume its agent. A lost task is sent
        again by the stale sweep."""
        if self._inbox.delivery_due(uuid):
            self._tasks.send(task_queue.DELIVER, uuid, request_id=request_id)

    def _deliver_most(self, uuid: str, most: int) -> None:
        deadline = self._clock() + self._limit
        for _ in range(most):
            if self._clock() > deadline:
                return
            agent, prompt = self._agent(uuid), self._inbox.head(uuid)
            if prompt is None or agent is None:
                return
            if self._inbox.was_rolled_back(uuid, prompt.id):
                # It had expired, and was taken again before its rollback was noted. Its agent may have forgotten it
                # with the files.
                self._inbox.end_as_rolled_back(uuid, [prompt.id], self._clock())
                continue
            try:
                with tracing.span("deliver prompt", {"session.uuid": uuid}, parent=prompt.traceparent, kind="client"):
                    said = self._hand_over(agent, prompt)
            except AgentRefused as error:
                self._inbox.finish(uuid, prompt.id, reason=str(error), code=Failure.AGENT_REFUSED, now=self._clock())
            except AgentUnavailable as error:
                log.warning("delivery failed, the prompts wait: %s", error, extra={"uuid": uuid})
                self._inbox.agent_failed(agent, self._clock())
                return
            else:
                self._inbox.delivered(uuid, prompt.id, self._clock())
                self._note_end(uuid, prompt.id, said)

    def _agent(self, uuid: str) -> Agent | None:
        """The agent to deliver to. None while it pauses after a failure, or when the session should not run."""
        try:
            record = self._store.get(uuid)
        except SessionNotFound:
            return None
        if record.status not in UP:
            return None
        agent = self._inbox.agent(uuid) or self._resumed(record)
        return agent if agent is not None and agent.retry_at <= self._clock() else None

    def _resumed(self, record: Record) -> Agent | None:
        """The agent whose stop was broken off, resumed: it takes prompts again."""
        agent = self._inbox.leaving_agent(record.uuid)
        started = record.started_at or record.status is Status.ACTIVE
        if agent is None or not started or agent.retry_at > self._clock():
            return None
        try:
            self._agents.resume(agent, record.generation)
        except AgentRefused as error:
            log.warning("the agent does not resume, it waits a while: %s", error, extra={"uuid": record.uuid})
        except AgentUnavailable as error:
            log.warning("the agent could not be resumed yet: %s", error, extra={"uuid": record.uuid})
            self._inbox.agent_failed(agent, self._clock())
            return None
        self._inbox.agent_stays(record.uuid, record.generation, self._clock())
        return self._inbox.agent(record.uuid)

    def _hand_over(self, agent: Agent, prompt: Prompt) -> Mapping[str, Any]:
        deadline = self._clock() + NOT_READY
        for attempt in range(TRIES - 1):
            try:
                return self._agents.chat(agent, prompt.id, prompt.text)
            except AgentNotReady:
                # An agent that took that long to answer is not tried again.
                if self._clock() > deadline:
                    raise
                self._pause(FIRST_PAUSE * 2**attempt)
        return self._agents.chat(agent, prompt.id, prompt.text)

    def _note_end(self, uuid: str, message_id: str, said: Mapping[str, Any]) -> None:
        """Note the result of a prompt that the agent had finished before: its own report may have been lost."""
        response, now = said.get("response"), self._clock()
        if said.get("status") == "processed" and isinstance(response, dict):
            self._inbox.finish(uuid, message_id, response=response, now=now)
        elif said.get("status") == "failed":
            reason, code = str(said.get("reason") or "The agent gave no reason."), Failure.of(said.get("code"))
            kept = response if isinstance(response, dict) else {}
            self._inbox.finish(uuid, message_id, response=kept, reason=reason, code=code, now=now)
