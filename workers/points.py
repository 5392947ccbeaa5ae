"""Makes the restore points that are asked for, and asks for those that are due.

A point is asked for by the end of a sleep, by a sweep, and by a caller. The request is in the record, as that of a
backup. A failed attempt is repeated, later each time, for as long as it takes: that points are late is told by the
status, the metrics and an alert, and no session fails for it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from app.core.composition import Core
from app.core.errors import FilesGone, RetryableError, SessionError, SessionNotFound, StateUnavailable, Superseded
from app.core.redis import keys, task_queue
from app.core.restore_points.schedule import RECHECK, has_files, next_point
from app.core.sessions.model import GONE, UP, Record
from workers import worker_metrics
from workers.lifecycle import archiving
from workers.lifecycle.ended import failed
from workers.lifecycle.intents import Lifecycle, pause
from workers.lifecycle.notify import notify
from workers.lifecycle.point_making import PointMaking, kept_events
from workers.lifecycle.wanted import deleted, deleted_or_woken, while_wanted
from workers.runtime.base import Runtime

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 900.0
"""s until the attempt after a failed one: doubled from the first to the longest."""

CROWDED_PAUSE = 60.0
"""s by which the full look at a sleeping session gives way to points that save something."""

REASON_LENGTH = 300
"""Characters of an error in the record: a sleeping session may cost 2 KB."""


class Points:
    """Restore points, through a runtime. Times are seconds since the epoch."""

    def __init__(
        self, core: Core, runtime: Runtime, lifecycle: Lifecycle, clock: Callable[[], float] = time.time
    ) -> None:
        self._core = core
        self._store = core.store
        self._making = PointMaking(core, runtime, clock)
        self._settings = core.settings
        self._lifecycle = lifecycle
        self._clock = clock
        self._slots = [keys.POINT_SLOT.format(number=n) for n in range(core.settings.restore_points_at_once)]
        # A volume of a cluster is mounted on one machine, so a wake must not wait for a point.
        self._ends = deleted_or_woken if core.settings.runtime == "kubernetes" else deleted

    def make(self, uuid: str) -> None:
        """Make the restore point that is requested, if one of the service's slots is free. Raises a `RetryableError`
        after scheduling the next attempt."""
        with self._core.leases.hold_one(self._slots) as free:
            if not free:
                self._store.defer(keys.POINT_REQUESTS, uuid, self._clock())
                return
            try:
                with self._core.attempts.begin_point(uuid) as record:
                    if record is not None:
                        self._attempt(record)
            finally:
                self._lifecycle.resend_waiting(uuid)
        self._send_due(most=1)

    def sweep(self) -> None:
        """Ask for the points that are due, and send requests again whose message or worker was lost."""
        now = self._clock()
        if not self._settings.archive_key:
            self._store.clear(keys.POINTS_DUE)
            return
        crowded = self._store.size(keys.POINT_REQUESTS) >= len(self._slots)
        for record in self._store.due(keys.POINTS_DUE, now):
            self._store.defer(keys.POINTS_DUE, record.uuid, self._looked_at(record, now, crowded=crowded))
        self._send_due(most=sum(not self._core.leases.held(each) for each in self._slots))

    def _looked_at(self, record: Record, now: float, *, crowded: bool) -> float:
        """Ask for a point if one is due; answers when to look again, 0 for never."""
        due = next_point(record, self._settings, now)
        if record.status in GONE or record.archived_at:
            return 0.0
        if due.at > now:
            return due.at if math.isfinite(due.at) else now + RECHECK
        if crowded and due.full and due.trigger == "interval" and record.status not in UP:
            return now + CROWDED_PAUSE
        self._core.sessions.ask_for_point(record.uuid, due.trigger)
        return now + RECHECK

    def _send_due(self, most: int) -> None:
        """Send the requests whose time has come, as far as there are slots."""
        now = self._clock()
        for record in self._store.due(keys.POINT_REQUESTS, now, limit=most) if most > 0 else ():
            self._store.defer(keys.POINT_REQUESTS, record.uuid, now + self._settings.stale_after)
            self._core.tasks.send(task_queue.POINT, record.uuid)

    def _attempt(self, record: Record) -> None:
        uuid, begun = record.uuid, self._clock()
        # First, for a worker that dies.
        self._store.defer(keys.POINT_REQUESTS, uuid, begun + pause(record.point_tries, FIRST_PAUSE, LONGEST_PAUSE))
        worker_metrics.worker_figures().tried(task_queue.POINT)
        try:
            if has_files(record):
                full = record.point_trigger == archiving.TRIGGER or next_point(record, self._settings, begun).full
                check = while_wanted(self._store, record, self._ends)
                self._making.make(record, record.point_trigger or "interval", check, full=full)
        except (Superseded, SessionNotFound) as error:
            # It is asked for again when it is due.
            log.info("restore point cancelled: %s", error, extra={"uuid": uuid})
        except StateUnavailable:
            raise
        except FilesGone:
            self._lifecycle.check_files(uuid)
        except RetryableError as error:
            self._note_failed(record, str(error), begun, error.code)
            raise
        except SessionError as error:
            self._note_failed(record, str(error), begun, error.code)
            return
        except Exception as error:
            self._note_failed(record, f"an internal error ({type(error).__name__})", begun)
            raise
        if not self._store.settle_point(uuid, record.point_asked):
            # It was requested again after this one began, so later changes are in no point.
            self._core.tasks.send(task_queue.POINT, uuid, request_id=record.request_id)

    def _note_failed(self, record: Record, why: str, begun: float, code: str = "") -> None:
        """The next attempt is scheduled. Of attempts that fail for the same reason, the first is an event."""
        now, why = self._clock(), why[:REASON_LENGTH]
        notify(self._core, failed("point", record, why, now, since=begun, code=code))
        if why != record.point_error:
            event = ("restore_point", {"status": "failed", "reason": why})
            self._store.change(record.uuid, now, point_error=why, event=event, events_ttl=kept_events(record))
