"""Taking leave of an agent before its workspace is stopped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from app.sessions.agents import Agent
from app.sessions.core import Core
from app.sessions.errors import SessionError

log = logging.getLogger(__name__)


def take_leave(core: Core, agent: Agent, reason: str) -> Mapping[str, Any] | None:
    """Before a workspace is stopped: ask what work that puts at risk, end the turn that runs, and store the
    conversation. Answers the work at risk (app/sessions/risk.py), None when it could not be learned.

    Each step has a time of its own, `RISK_TIMEOUT` of app/sessions/agents.py or `AGENT_TIMEOUT`, and none holds the
    stop up: the agent keeps its conversation on the volume too, and pushes it when it is told to end.
    """
    risk = None
    try:
        risk = core.agents.risk(agent)
    except SessionError as error:
        log.warning("left without knowing what is at risk: %s", error, extra={"uuid": agent.uuid})
    try:
        core.agents.cancel(agent, reason)
        core.archive.write(agent.uuid, core.agents.checkpoint(agent))
    except SessionError as error:
        log.warning("left without a checkpoint: %s", error, extra={"uuid": agent.uuid})
    return risk
