"""Prepares an agent for the stop of its workspace."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from app.core.composition import Core
from app.core.errors import AgentUnavailable, SessionError
from app.core.prompts.agent_client import Agent, CheckpointIncomplete
from app.core.prompts.history_index import Contended
from workers.runtime.base import Check, never

log = logging.getLogger(__name__)


def shut_down(
    core: Core, agent: Agent, reason: str, generation: int = 0, check: Check = never
) -> Mapping[str, Any] | None:
    """Before a workspace is stopped: ask for the unsaved work, cancel the running turn, and store the conversation.
    Returns the unsaved work (app/core/sessions/unsaved_work.py), None when it is unknown.

    One deadline, `AGENT_SHUTDOWN_TIMEOUT` from now, covers all steps, and no failure prevents the stop: the agent keeps
    its conversation on the volume too, and pushes it at SIGTERM. `generation` is that of the stop. `check` is called
    between steps and raises when the stop is no longer wanted; the agent may have cancelled its turn by then, so the
    caller must tell it to continue.
    """
    deadline = time.monotonic() + core.settings.agent_shutdown_timeout

    def left() -> float:
        if (seconds := deadline - time.monotonic()) > 0:
            return seconds
        raise AgentUnavailable(f"The agent of session {agent.uuid} did not finish its shutdown in time.")

    risk = None
    try:
        risk = core.agents.unsaved_work(agent, left())
    except SessionError as error:
        log.warning("stopping without knowing the unsaved work: %s", error, extra={"uuid": agent.uuid})
    check()
    try:
        core.agents.cancel(agent, reason, generation, left())
    except SessionError as error:
        log.warning("stopping with a turn that may still run: %s", error, extra={"uuid": agent.uuid})
        return risk
    check()
    try:
        kept = core.agents.checkpoint(agent, left())
        if kept is not None:
            core.history_store.write(agent.uuid, kept)
    except SessionError as error:
        log.warning("stopping without a checkpoint: %s", error, extra={"uuid": agent.uuid})
        if isinstance(error, CheckpointIncomplete) or not isinstance(error, AgentUnavailable | Contended):
            _note(core, agent.uuid, str(error))
    return risk


def _note(core: Core, uuid: str, reason: str) -> None:
    """Note that the agent has a newer conversation than the history store; the status shows it until it is stored."""
    with suppress(SessionError):
        if not core.store.get(uuid).unarchived:
            core.store.note_unarchived(uuid, {"since": round(time.time(), 3), "reason": reason})
