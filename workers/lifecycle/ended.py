"""The end of an action on a session as one value, which `notify` (workers/lifecycle/notify.py) hands to listeners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from app.core.redis import task_queue
from app.core.sessions.model import Record, Status
from app.process.private_text import without_private

STARTING = frozenset({Status.CREATED, Status.WAKING})

STARTS = frozenset(task_queue.START_KINDS.values())
"""The actions that end with an active session."""

REQUESTED = frozenset({"backup", "point", "drill"})
"""Actions that are no intent: their task names the request behind them, not the record."""

NOTHING: Mapping[str, int] = MappingProxyType({})


class Outcome(StrEnum):
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An action that ended. Made by `done`, `failed` and `session_failed`.

    action           `create`, `restore`, `rollback`, `wake`, `sleep`, `archive`, `backup`, `point` (a restore point),
                     `drill` (of one) or `delete`; "" when a session failed by itself
    record           the session, as it was read before the end: its status is the earlier one
    now              when it ended, in s since the epoch
    since            when it was asked for, of a backup, a restore point or a drill when it began; 0 when that is
                     unknown, or something else than the service did it
    phases           ms from `since` to the end of each part, as the attempt that ended the action knows them
    figures          what else this end adds to counters, by counter
    reason, code     why it failed, without what is private of the user, and the stable code of that; "" if unknown
    session_failed   whether the session itself became `failed`; one whose backup fails goes on
    """

    action: str
    record: Record
    outcome: Outcome
    now: float
    since: float
    phases: Mapping[str, int]
    figures: Mapping[str, int]
    reason: str = ""
    code: str = ""
    session_failed: bool = False


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


def done(
    action: str,
    record: Record,
    now: float,
    *,
    since: float | None = None,
    phases: Mapping[str, int] = NOTHING,
    figures: Mapping[str, int] = NOTHING,
) -> Ended:
    """The action was done. Without `since` it was asked for by the record's request."""
    since = record.requested_at if since is None else since
    return Ended(
        action=action, record=record, outcome=Outcome.DONE, now=now, since=since, phases=phases, figures=figures
    )


def failed(
    action: str,
    record: Record,
    reason: str,
    now: float,
    *,
    since: float | None = None,
    code: str = "",
    session_failed: bool = False,
    figures: Mapping[str, int] = NOTHING,
) -> Ended:
    """The action failed. `since` as in `done`; private parts of the reason are left out."""
    return Ended(
        action=action,
        record=record,
        outcome=Outcome.FAILED,
        now=now,
        since=record.requested_at if since is None else since,
        phases=record.phases if action and action not in REQUESTED else NOTHING,
        reason=without_private(reason),
        code=code,
        session_failed=session_failed,
        figures=figures,
    )


def session_failed(record: Record, reason: str, now: float, code: str) -> Ended:
    """The session became `failed`, and with it the action that it was asked for, if any."""
    return failed(action_of(record), record, reason, now, code=code, session_failed=True)
