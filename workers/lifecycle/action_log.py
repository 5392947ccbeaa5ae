"""Logs and traces the end of each action on a session. Its line has these fields:

uuid, action     of what: `create`, `restore`, `rollback`, `wake`, `sleep`, `archive`, `backup`, `point` (a
                 restore point), `drill` (of one) or `delete`; no action when a session failed by itself
outcome          `done` or `failed`
duration         s since the request, of a backup, a restore point or a drill since its begin; left out when that
                 is unknown
phases           ms from the same moment to the end of each part, as the attempt that ended the action knows them
reason           why it failed, "" if it did not
request_id       of the request that asked for it, "" if nobody did
"""

from __future__ import annotations

import logging
from typing import Any

from app.core.composition import Core
from app.process import logs, tracing
from workers.lifecycle.ended import REQUESTED, Ended, Outcome

log = logging.getLogger(__name__)


def write_line(core: Core, ended: Ended) -> None:
    """A failure is a warning."""
    if ended.outcome is Outcome.DONE:
        log.info("%s done", ended.action, extra=_fields(ended))
    else:
        log.warning("%s failed: %s", ended.action or "session", ended.reason, extra=_fields(ended))


def add_span(core: Core, ended: Ended) -> None:
    """Add the whole action to its request's trace: the start of a workspace ends where no request waits for it."""
    if not (ended.action and ended.since):
        return
    phases = {f"phase.{name}": ms for name, ms in ended.phases.items()}
    told: dict[str, str | int] = {"session.uuid": ended.record.uuid, **phases}
    parent = "" if ended.action in REQUESTED else ended.record.traceparent
    failure = "failed" if ended.outcome is Outcome.FAILED else ""
    tracing.record(f"session {ended.action}", told, ended.since, ended.now, parent, failure)


def _fields(ended: Ended) -> dict[str, Any]:
    action, since = ended.action, ended.since
    named = {"action": action} if action else {}
    duration = {"duration": round(max(0.0, ended.now - since), 3)} if action and since else {}
    # What something else did has none.
    request_id = logs.request_id.get() if action in REQUESTED else ended.record.request_id if action and since else ""
    told = {"outcome": str(ended.outcome), "phases": dict(ended.phases), "reason": ended.reason}
    return {"uuid": ended.record.uuid, **named, **duration, **told, "request_id": request_id}
