"""Whether long work is still wanted: the `Check` of a backup, a restore or a restore point."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.core.errors import StateUnavailable, Superseded
from app.core.sessions.model import GONE, UP, Record, Status
from app.core.sessions.store import SessionStore
from workers.runtime.base import Check

CHECK_EVERY = 0.5
"""s between two checks: a newer intent waits for this."""

Ends = Callable[[Record, Record], bool]
"""Takes the record at the start and now."""


def while_wanted(store: SessionStore, begun: Record, ends: Ends, every: float = CHECK_EVERY) -> Check:
    """A `Check` that raises `Superseded` once `ends` is true."""
    look_at = 0.0

    def check() -> None:
        nonlocal look_at
        if time.monotonic() < look_at:
            return
        look_at = time.monotonic() + every
        try:
            now = store.get(begun.uuid)
        except StateUnavailable:
            return  # the next check will tell
        if ends(begun, now):
            raise Superseded(f"Session {begun.uuid} is {now.status}, so this is no longer wanted.")

    return check


def newer(begun: Record, now: Record) -> bool:
    """Whether another attempt took over."""
    return (begun.generation, begun.lease) != (now.generation, now.lease)


def gone(begun: Record, now: Record) -> bool:
    """Whether another attempt took over, or the session is being deleted and needs no files."""
    return begun.lease != now.lease or now.status in GONE


def forced(begun: Record, now: Record) -> bool:
    """Whether the session is to be deleted without a backup."""
    return now.status in GONE and not now.delete_backup


def deleted(begun: Record, now: Record) -> bool:
    """Whether the session is being deleted."""
    return now.status in GONE


def deleted_or_woken(begun: Record, now: Record) -> bool:
    """Whether the session is being deleted, or its processes ended and start again: only one machine can mount the
    volume."""
    ended = begun.status not in UP or begun.epoch != now.epoch
    return now.status in GONE or (ended and now.status in UP and now.status is not Status.CREATED)
