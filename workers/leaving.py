"""Taking leave of an agent before its workspace is stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from app.sessions.agents import Agent
from app.sessions.core import Core
from app.sessions.errors import SessionError

log = logging.getLogger(__name__)


def never() -> None:
    """Nothing is newer than this stop."""


def take_leave(
    core: Core, agent: Agent, reason: str, generation: int = 0, check: Callable[[], None] = never
) -> Mapping[str, Any] | None:
    """Before a workspace is stopped: ask what work that puts at risk, end the turn that runs, and store the
    conversation. Answers the work at risk (app/sessions/risk.py), None when it could not be learned.

    Each step has a time of its own, `RISK_TIMEOUT` of app/sessions/agents.py or `AGENT_TIMEOUT`, and none holds the
    stop up: the agent keeps its conversation on the volume too, and pushes it when it is told to end. `generation` is
    that of the stop. `check` is called before each further step; what it raises, when the stop is not wanted any
    more, goes through: the agent may have been told by then, so whoever called tells it to go on.
    """
    risk = None
    try:
        risk = core.agents.risk(agent)
    except SessionError as error:
        log.warning("left without knowing what is at risk: %s", error, extra={"uuid": agent.uuid})
    check()
    try:
        core.agents.cancel(agent, reason, generation)
    except SessionError as error:
        log.warning("left with a turn that may run: %s", error, extra={"uuid": agent.uuid})
        return risk
    check()
    try:
        core.archive.write(agent.uuid, core.agents.checkpoint(agent))
    except SessionError as error:
        log.warning("left without a checkpoint: %s", error, extra={"uuid": agent.uuid})
    return risk
