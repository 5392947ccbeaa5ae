"""Counts the ends of actions on sessions: the figures of `/metrics` (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Mapping

from app.core.composition import Core
from app.core.errors import PermanentError
from workers.lifecycle.ended import STARTS, Ended, Outcome

STARTED = "starts"
SESSION_FAILED = "sessions_failed"

POINTS_MADE, POINTS_UNCHANGED = "points_made", "points_unchanged"
POINTS_STORED, POINTS_BROKEN = "points_stored_bytes", "points_broken"
"""What restore points and drills add to (`Ended.figures`)."""

DONE: Mapping[str, str] = {
    **dict.fromkeys(STARTS, STARTED),
    "sleep": "sleeps",
    "archive": "archived",
    "backup": "backups",
    "drill": "drills_proven",
    "delete": "teardowns",
}
"""The counter of each action that was done. A restore point adds its figures instead."""

FAILED: Mapping[str, str] = {
    "archive": "archives_failed",
    "backup": "backups_failed",
    "point": "points_failed",
    "drill": "drills_failed",
}
"""The counter of each action that failed while its session went on."""

TIMED = frozenset({"sleep", "archive", "backup", "delete", "point", "drill"})


def count(core: Core, ended: Ended) -> None:
    """Add to the action's counter, and to those of its figures. Raises `StateUnavailable`, as all here."""
    if name := _counter(ended):
        core.counters.count(name)
    for name, more in ended.figures.items():
        core.counters.count(name, more)


def count_duration(core: Core, ended: Ended) -> None:
    """Count how long an action took that was done: of a start by phase, of others in total too."""
    if ended.outcome is not Outcome.DONE or not ended.since:
        return
    if ended.action in STARTS:
        core.counters.started(ended.action, ended.phases)
    elif ended.action in TIMED:
        total = max(0, round((ended.now - ended.since) * 1000))
        core.counters.acted(ended.action, {**ended.phases, "total": total})


def count_cause(core: Core, ended: Ended) -> None:
    """Count a failure by its action, and by its reason."""
    if ended.outcome is not Outcome.FAILED:
        return
    core.counters.failed_because(_cause(ended))
    if ended.action:
        core.counters.action_failed(ended.action)


def _counter(ended: Ended) -> str:
    """The counter of this end, "" for none."""
    if ended.session_failed:
        return SESSION_FAILED
    if ended.outcome is Outcome.FAILED:
        return FAILED.get(ended.action, "")
    # What something else did is not counted as done by the service.
    return DONE.get(ended.action, "") if ended.since else ""


def _cause(ended: Ended) -> str:
    """The reason by which a failure is counted: the code if it says something, else what failed."""
    return ended.code if ended.code not in ("", PermanentError.code) else f"{ended.action or 'session'}_failed"
