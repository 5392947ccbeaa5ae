"""Taking leave of an agent before its workspace is stopped."""

from __future__ import annotations

import logging

from app.sessions.agents import Agent
from app.sessions.core import Core
from app.sessions.errors import SessionError

log = logging.getLogger(__name__)


def take_leave(core: Core, agent: Agent, reason: str) -> None:
    """Before a workspace is stopped: end the turn that runs, and store the conversation. Each is bounded by
    `AGENT_TIMEOUT` and none holds the stop up: the agent keeps its conversation on the volume too, and pushes it
    when it is told to end."""
    try:
        core.agents.cancel(agent, reason)
        core.archive.write(agent.uuid, core.agents.checkpoint(agent))
    except SessionError as error:
        log.warning("left without a checkpoint: %s", error, extra={"uuid": agent.uuid})
