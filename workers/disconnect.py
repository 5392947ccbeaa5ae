"""Ends connections that were opened with access tokens revoked since."""

from __future__ import annotations

import logging

from app.core.access.revocation import disconnect_due, nothing_runs
from app.core.composition import Core
from app.core.errors import SessionError, SessionNotFound, StateUnavailable
from app.core.sessions.model import Status
from app.secret_keys import Purpose

log = logging.getLogger(__name__)


def end_connections(core: Core, uuid: str, now: float) -> None:
    """Make the agent end the connections to its workspace, if access was revoked since the last time. A session that
    is not running has no connections, and without a SECRET_KEY nobody had access. After a failure the stale sweep tries
    again."""
    try:
        record = core.store.get(uuid)
    except SessionNotFound:
        core.revocations.clear(uuid)
        return
    if not disconnect_due(record) or nothing_runs(record) or not core.settings.keys_for(Purpose.AGENT):
        core.revocations.disconnected(record)
        return
    # A start or a stop may be interrupted, and then the old connections still exist.
    agent = core.inbox.agent(uuid) if record.status is Status.ACTIVE else None
    if agent is None:
        core.revocations.failed(uuid, now)
        return
    try:
        core.agents.disconnect(agent, record.access_epoch)
    except StateUnavailable:
        raise
    except SessionError as error:
        log.warning("connections not ended yet: %s", error, extra={"uuid": uuid})
        core.revocations.failed(uuid, now)
        return
    if not core.revocations.may_still_connect(record, now):
        core.revocations.disconnected(record)
