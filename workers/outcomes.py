"""Logs the end of each action on a session: one line with `uuid`, `action` and `duration` (s since the request).

The caller is the one attempt whose change of the record ended the action, so a repeated task logs nothing.
"""

from __future__ import annotations

import logging

from app.core.redis import task_queue
from app.core.sessions.model import Record, Status
from workers.runtime import exits

log = logging.getLogger(__name__)

STARTING = frozenset({Status.CREATED, Status.WAKING})

START_KINDS = {task_queue.PROVISION: "create", task_queue.RESTORE: "restore", task_queue.WAKE: "wake"}
"""The name of a start in logs and metrics, by its task."""


def action_of(record: Record) -> str:
    """The action that the record's intent asks for: `create`, `restore`, `wake`, `sleep` or `delete`; "" when the
    intent is settled."""
    if record.status in STARTING:
        return START_KINDS.get(record.task, "wake")
    if record.settled >= record.generation:
        return ""
    return {Status.SLEEPING: "sleep", Status.TERMINATING: "delete"}.get(record.status, "")


def succeeded(record: Record, action: str, now: float, since: float | None = None) -> None:
    """Log that `action` ended at `now`. `since` is when it was asked for: None for the record's request, 0 when that is
    unknown, which leaves the duration out."""
    log.info("%s done", action, extra=_fields(record, action, now, since))


def failed(record: Record, reason: str, now: float, action: str = "", since: float | None = None) -> None:
    """Log that the record's action, or `action`, failed; a session that fails without one logs neither action nor
    duration. The last lines of a workspace's log, which are its user's, stay out of the service's."""
    action, reason = action or action_of(record), reason.partition(exits.LOG_HEADING)[0]
    log.warning("%s failed: %s", action or "session", reason, extra=_fields(record, action, now, since))


def _fields(record: Record, action: str, now: float, since: float | None) -> dict[str, str | float]:
    since = record.requested_at if since is None else since
    duration = {"duration": round(max(0.0, now - since), 3)} if action and since else {}
    return {"uuid": record.uuid, **({"action": action} if action else {}), **duration}
