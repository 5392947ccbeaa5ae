"""Ends connections that were opened with access tokens revoked since."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from app.core.access.revocation import nothing_runs
from app.core.composition import Core
from app.core.errors import (
    AgentUnavailable,
    IllegalState,
    SessionError,
    SessionNotFound,
    StateUnavailable,
    Superseded,
)
from app.core.redis import task_queue
from app.core.sessions.model import Record, Status
from app.process.secret_keys import Purpose

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""s in which a workspace must confirm that connections were ended."""

TRIES, PAUSE = 10, 0.5
"""How often it is asked in that time, and s between."""


def end_connections(core: Core, uuid: str, now: float, pause: Callable[[float], None] = time.sleep) -> None:
    """Have the session's editor end the connections to it, if access was revoked since the last time, and have the
    workspace replaced if its editor does not confirm that. A session that is not running has no connections, and
    without a SECRET_KEY nobody had access. After a failure the stale sweep tries again."""
    try:
        record = core.store.get(uuid)
    except SessionNotFound:
        core.revocations.clear(uuid)
        return
    if not core.revocations.due(uuid):
        return
    if nothing_runs(record) or _replaced(record) or not core.settings.keys_for(Purpose.AGENT):
        core.revocations.disconnected(record)
        return
    if record.status is not Status.ACTIVE:
        # A start or a stop may be interrupted, and then the old connections still exist.
        core.revocations.failed(uuid, now)
        return
    try:
        _disconnect(core, record, pause)
    except StateUnavailable:
        raise
    except SessionError as error:
        log.warning("connections not ended, the workspace is replaced: %s", error, extra={"uuid": uuid})
        # Delivery workers write no intents.
        core.tasks.send(task_queue.REPLACE, uuid, record.access_epoch, request_id=record.request_id)
        core.revocations.failed(uuid, now)
        return
    if not core.revocations.may_still_connect(record, now):
        core.revocations.disconnected(record)


def replace_workspace(core: Core, uuid: str, access_epoch: int) -> None:
    """Replace the workspace of a session whose editor did not confirm that the connections from before this access
    epoch had ended, unless that was done, or access was revoked again since."""
    try:
        record = core.store.get(uuid)
        due = record.access_epoch == access_epoch and core.revocations.due(uuid) and not _replaced(record)
        if not due or record.status is not Status.ACTIVE:
            return
        core.sessions.replace_workspace(record)
    except (Superseded, IllegalState, SessionNotFound) as error:
        log.info("not replaced: %s", error, extra={"uuid": uuid})
        return
    core.audit.note_own("replace", uuid, record.user_id, "its editor did not confirm a disconnect", repeatable=True)


def _disconnect(core: Core, record: Record, pause: Callable[[float], None]) -> None:
    """Have the editor end connections. It is asked again for `PATIENCE`: a revocation gives the agent another secret,
    which takes a second to arrive, and an agent that died is back as soon."""
    deadline = time.monotonic() + PATIENCE
    for tries_left in reversed(range(TRIES)):
        try:
            agent = core.inbox.agent(record.uuid)
            if agent is None:
                raise AgentUnavailable(f"The agent of session {record.uuid} did not register.")
            core.agents.disconnect(agent, record.access_epoch, deadline - time.monotonic())
            return
        except AgentUnavailable:
            if not tries_left or time.monotonic() + PAUSE > deadline:
                raise
        pause(PAUSE)


def _replaced(record: Record) -> bool:
    """Whether the workspace was replaced after its access was last revoked. Until that intent is carried out the
    session is not active."""
    return record.status is Status.ACTIVE and record.replaced_epoch == record.access_epoch
