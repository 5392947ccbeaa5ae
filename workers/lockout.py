"""Ending the connections that were made with passes since taken back."""

from __future__ import annotations

import logging

from app.sessions.core import Core
from app.sessions.errors import SessionError, SessionNotFound, StateUnavailable
from app.sessions.lockouts import nobody_inside, owed
from app.sessions.model import Status

log = logging.getLogger(__name__)


def lock_out(core: Core, uuid: str, now: float) -> None:
    """Have the agent of a session that is up end every connection to its workspace, if that is owed. One where nothing
    runs has none, and without a SECRET_KEY nobody got in. What can't be done now the stale sweep comes back to."""
    try:
        record = core.store.get(uuid)
    except SessionNotFound:
        core.lockouts.forget(uuid)
        return
    if not owed(record) or nobody_inside(record) or not core.settings.secret_keys():
        core.lockouts.done(record)
        return
    # A start or a stop that may yet be broken off: who was inside still is then.
    agent = core.inbox.agent(uuid) if record.status is Status.ACTIVE else None
    if agent is None:
        core.lockouts.failed(uuid, now)
        return
    try:
        core.agents.lock_out(agent)
    except StateUnavailable:
        raise
    except SessionError as error:
        log.warning("connections not ended yet: %s", error, extra={"uuid": uuid})
        core.lockouts.failed(uuid, now)
        return
    core.lockouts.done(record)
