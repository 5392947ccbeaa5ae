"""When the next restore point of a session is due: decided from its record, with the time passed in."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

from app.core.sessions.model import GONE, UP, Record, Status
from app.process.settings import Settings

RECHECK = 300.0
"""s until a session is looked at again whose point was asked for, or which has no files yet."""


@dataclass(frozen=True)
class Due:
    """When the next point is due (s since the epoch, infinity for never); `full` if it is also to look at all content,
    to read the stored data back and to prune."""

    at: float
    full: bool
    trigger: str = "interval"


def has_files(record: Record) -> bool:
    """Whether there is anything to save: not while a session is being created, restored or deleted."""
    made = record.provisioned and not record.restore_from
    return made and record.status not in GONE and record.status is not Status.CREATED


def next_point(record: Record, settings: Settings, now: float) -> Due:
    """The session's next point. While it is awake, one interval after the newest; asleep, as soon as its processes have
    run since the newest; and once in each check interval, at a time of its own, with a full look."""
    checked = record.point_checked_at or record.created_at
    full_at = _slot_after(checked, record.uuid, settings.restore_point_check_interval)
    saved_at, trigger = record.point_at, "interval"
    if not has_files(record):
        return Due(math.inf, full=False)
    if record.status in UP:
        interval = settings.restore_point_interval
        at = (saved_at or record.created_at) + interval if interval else math.inf
    else:
        at = math.inf if saved_at and saved_at >= record.compute_until else record.compute_until
        trigger = "sleep"
    return Due(min(at, full_at), full=full_at <= now, trigger=trigger if at <= full_at else "interval")


def _slot_after(when: float, uuid: str, interval: float) -> float:
    """The next of the session's own times after `when`: they are an interval apart, and spread over it."""
    if not interval:
        return math.inf
    offset = zlib.crc32(uuid.encode()) / 2**32 * interval
    return when + interval - (when - offset) % interval
