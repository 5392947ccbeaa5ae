"""When restore points are proven, and the room that it takes: pure, with the time passed in.

A session is due for the last quarter of its cycle. The rate is such that all sessions fit into that quarter, so each is
proven once in a cycle, also those that became due together, and a drill that had to be repeated.
"""

from __future__ import annotations

import math

QUARTER = 0.25
"""Of a cycle: a session is due when so much of its cycle is left."""

LATE = 2
"""Cycles without a proof after which drills are late."""

ROOM = 1.1
"""Of a point's size: blocks are larger than files."""

PER_FILE = 4_096
"""Bytes of a file's last block and of its inode, at most."""


def due_before(cycle: float, now: float) -> float:
    """Sessions that were proven before this are due."""
    return now - cycle * (1 - QUARTER)


def again_at(cycle: float, now: float) -> float:
    """When a session is tried again none of whose points is whole now: once in each cycle."""
    return now + cycle * (1 - QUARTER)


def most_at_once(sessions: int, cycle: float, interval: float) -> int:
    """How many sessions a sweep asks for drills of, of so many with restore points; `interval` (s) is the sweep's."""
    return math.ceil(sessions * interval / (cycle * QUARTER))


def first_seen(proven_at: float, made_at: float, cycle: float, now: float) -> float:
    """The time that a session counts as proven at which was last proven at `proven_at`, 0 for never as far as is known,
    and whose oldest point was made at `made_at`: what was forgotten is due, and not late."""
    return max(proven_at or made_at, now - cycle)


def room_for(files: int, size: int) -> int:
    """Bytes of a disk that a restored point of so many files with `size` bytes takes, at most."""
    return round(size * ROOM) + files * PER_FILE
