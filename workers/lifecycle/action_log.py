"""Logs and counts the end of each action on a session: the figures of `/metrics`, and one line with these fields:

    uuid, action     of what: `create`, `restore`, `rollback`, `wake`, `sleep`, `archive`, `backup`, `point` (a
                     restore point), `drill` (of one) or `delete`; no action when a session failed by itself
    outcome          `done` or `failed`
    duration         s since the request, of a backup, a restore point or a drill since its begin; left out when that
                     is unknown
    phases           ms from the same moment to the end of each part, as the attempt that ended the action knows them
    reason           why it failed, "" if it did not
    request_id       of the request that asked for it, "" if nobody did

The caller is the one attempt whose change of the record ended the action, so a repeated task logs and counts nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from app.core.errors import PermanentError, StateUnavailable
from app.core.redis import task_queue
from app.core.redis.counters import Counters
from app.core.sessions.model import Record, Status
from app.process import logs, tracing
from app.process.private_text import without_private

log = logging.getLogger(__name__)

STARTING = frozenset({Status.CREATED, Status.WAKING})

TIMED = frozenset({"sleep", "archive", "backup", "delete", "point", "drill"})
"""Actions whose durations are counted here. Those of starts are counted by phase (workers/lifecycle/mark_active.py)."""

REQUESTED = frozenset({"backup", "point", "drill"})
"""Actions that are no intent: their task names the request behind them, not the record."""

NO_PHASES: Mapping[str, int] = MappingProxyType({})


def action_of(record: Record) -> str:
    """The action that the record's intent asks for: `create`, `restore`, `rollback`, `wake`, `sleep`, `archive` or
    `delete`; "" when the intent is settled."""
    if record.status in STARTING:
        return task_queue.START_KINDS.get(record.task, "wake")
    if record.settled >= record.generation:
        return ""
    if record.task == task_queue.ARCHIVE:
        return "archive"
    return {Status.SLEEPING: "sleep", Status.TERMINATING: "delete"}.get(record.status, "")


def succeeded(
    counters: Counters,
    record: Record,
    action: str,
    now: float,
    since: float | None = None,
    phases: Mapping[str, int] = NO_PHASES,
) -> None:
    """Note that `action` ended at `now`. `since` is when it was asked for: None for the record's request, 0 when that
    is unknown, which leaves the duration out. `phases` are the ms from then to the end of each of its parts."""
    log.info("%s done", action, extra=_fields(record, action, "done", "", now, since, phases))
    _trace(record, action, now, since, phases)
    since = record.requested_at if since is None else since
    if action in TIMED and since:
        try:
            counters.acted(action, {**phases, "total": max(0, round((now - since) * 1000))})
        except StateUnavailable as error:
            log.warning("%s not counted: %s", action, error, extra={"uuid": record.uuid})


def failed(
    counters: Counters,
    record: Record,
    reason: str,
    now: float,
    action: str = "",
    since: float | None = None,
    code: str = "",
) -> None:
    """Note that the record's action, or `action`, failed; a session that fails without one logs neither action nor
    duration. `code` is the reason's, if it has one. The private parts of the reason, which are the user's, stay out of
    the service's log."""
    action, reason = action or action_of(record), without_private(reason)
    phases = record.phases if action and action not in REQUESTED else NO_PHASES
    fields = _fields(record, action, "failed", reason, now, since, phases)
    log.warning("%s failed: %s", action or "session", reason, extra=fields)
    if action:
        _trace(record, action, now, since, phases, failure="failed")
    try:
        counters.failed_because(cause(action, code))
        if action:
            counters.action_failed(action)
    except StateUnavailable as error:
        log.warning("failure not counted: %s", error, extra={"uuid": record.uuid})


def cause(action: str, code: str) -> str:
    """The reason by which a failure is counted: the code if it says something, else what failed."""
    return code if code not in ("", PermanentError.code) else f"{action or 'session'}_failed"


def _trace(
    record: Record, action: str, now: float, since: float | None, phases: Mapping[str, int], failure: str = ""
) -> None:
    """Add the whole action to its request's trace: the start of a workspace ends where no request waits for it."""
    asked = record.requested_at if since is None else since
    told: dict[str, str | int] = {"session.uuid": record.uuid, **{f"phase.{name}": ms for name, ms in phases.items()}}
    if asked:
        parent = "" if action in REQUESTED else record.traceparent
        tracing.record(f"session {action}", told, asked, now, parent, failure)


def _fields(
    record: Record,
    action: str,
    outcome: str,
    reason: str,
    now: float,
    since: float | None,
    phases: Mapping[str, int],
) -> dict[str, Any]:
    asked = record.requested_at if since is None else since
    named = {"action": action} if action else {}
    duration = {"duration": round(max(0.0, now - asked), 3)} if action and asked else {}
    # What something else did has none.
    request_id = logs.request_id.get() if action in REQUESTED else record.request_id if action and asked else ""
    told = {"outcome": outcome, "phases": dict(phases), "reason": reason, "request_id": request_id}
    return {"uuid": record.uuid, **named, **duration, **told}
