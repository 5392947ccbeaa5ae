"""Prepares an agent for the stop of its workspace."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from app.core.agents.agent import Agent
from app.core.composition import Core
from app.core.errors import AgentUnavailable, SessionError
from app.core.prompts.agent_client import CheckpointIncomplete
from workers.runtime.base import Check, never

log = logging.getLogger(__name__)


SHUTDOWN_TIMEOUT = 15.0
"""s before a stop, for all requests to the agent: unsaved work, the end of its turn, its conversation."""


@dataclass(frozen=True)
class Left:
    """What an agent left: the unsaved work (app/core/sessions/unsaved_work.py), None when it is unknown, and the
    fingerprint of the files, "" when they may change after it was taken."""

    unsaved_work: Mapping[str, Any] | None = None
    fingerprint: str = ""


def shut_down(core: Core, agent: Agent, reason: str, generation: int = 0, check: Check = never) -> Left:
    """Before a workspace is stopped: ask for the unsaved work, cancel the running turn, store the conversation, and ask
    for the files' fingerprint.

    One deadline, `SHUTDOWN_TIMEOUT` from now, covers all steps, and no failure prevents the stop: the agent keeps
    its conversation on the volume too, and pushes it at SIGTERM. `generation` is that of the stop. `check` is called
    between steps and raises when the stop is no longer wanted; the agent may have cancelled its turn by then, so the
    caller must tell it to continue.
    """
    deadline = time.monotonic() + SHUTDOWN_TIMEOUT

    def left() -> float:
        if (seconds := deadline - time.monotonic()) > 0:
            return seconds
        raise AgentUnavailable(f"The agent of session {agent.uuid} did not finish its shutdown in time.")

    unsaved = None
    try:
        unsaved = core.agents.unsaved_work(agent, left())
    except SessionError as error:
        log.warning("stopping without knowing the unsaved work: %s", error, extra={"uuid": agent.uuid})
    check()
    try:
        core.agents.cancel(agent, reason, generation, left())
    except SessionError as error:
        log.warning("stopping with a turn that may still run: %s", error, extra={"uuid": agent.uuid})
        return Left(unsaved)
    check()
    try:
        core.agents.checkpoint(agent, left())
    except SessionError as error:
        log.warning("stopping without a checkpoint: %s", error, extra={"uuid": agent.uuid})
        if isinstance(error, CheckpointIncomplete) or not isinstance(error, AgentUnavailable):
            _note(core, agent.uuid, str(error))
        return Left(unsaved)
    return Left(unsaved, _fingerprint(core, agent, left))


def _fingerprint(core: Core, agent: Agent, left: Callable[[], float]) -> str:
    if not core.makes_restore_points:
        return ""
    try:
        return core.agents.fingerprint(agent, left())
    except SessionError as error:
        log.info("stopping without a fingerprint of the files: %s", error, extra={"uuid": agent.uuid})
        return ""


def _note(core: Core, uuid: str, reason: str) -> None:
    """Note that the agent has a newer conversation than the history store; the status shows it until it is stored."""
    with suppress(SessionError):
        if not core.store.get(uuid).unarchived:
            core.store.note_unarchived(uuid, {"since": round(time.time(), 3), "reason": reason})
