"""Taking leave of an agent before its workspace is stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from app.sessions.agents import Agent, CheckpointLeft
from app.sessions.archive_index import Contended
from app.sessions.core import Core
from app.sessions.errors import AgentUnavailable, SessionError
from workers.runtime.base import Check, never

log = logging.getLogger(__name__)


def take_leave(
    core: Core, agent: Agent, reason: str, generation: int = 0, check: Check = never
) -> Mapping[str, Any] | None:
    """Before a workspace is stopped: ask what work that puts at risk, end the turn that runs, and store the
    conversation. Answers the work at risk (app/sessions/risk.py), None when it could not be learned.

    All of it ends by one deadline, `LEAVE_TIMEOUT` from now, and none of it holds the stop up: the agent keeps its
    conversation on the volume too, and pushes it when it is told to end. `generation` is
    that of the stop. `check` is called before each further step; what it raises, when the stop is not wanted any
    more, goes through: the agent may have been told by then, so whoever called tells it to go on.
    """
    deadline = time.monotonic() + core.settings.leave_timeout

    def left() -> float:
        if (seconds := deadline - time.monotonic()) > 0:
            return seconds
        raise AgentUnavailable(f"The agent of session {agent.uuid} took all the time there was to take leave of it.")

    risk = None
    try:
        risk = core.agents.risk(agent, left())
    except SessionError as error:
        log.warning("left without knowing what is at risk: %s", error, extra={"uuid": agent.uuid})
    check()
    try:
        core.agents.cancel(agent, reason, generation, left())
    except SessionError as error:
        log.warning("left with a turn that may run: %s", error, extra={"uuid": agent.uuid})
        return risk
    check()
    try:
        kept = core.agents.checkpoint(agent, left())
        if kept is not None:
            core.archive.write(agent.uuid, kept)
    except SessionError as error:
        log.warning("left without a checkpoint: %s", error, extra={"uuid": agent.uuid})
        if isinstance(error, CheckpointLeft) or not isinstance(error, AgentUnavailable | Contended):
            _note(core, agent.uuid, str(error))
    return risk


def _note(core: Core, uuid: str, reason: str) -> None:
    """The agent has something newer than what is kept; the status says so until it has stored that."""
    now = time.time()
    with suppress(SessionError):
        if not core.store.get(uuid).unarchived:
            core.store.change(uuid, now, unarchived={"since": round(now, 3), "reason": reason})
