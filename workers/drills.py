"""Drills: restore points are proven by restoring them, each session's newest one at least once in `DRILL_CYCLE`.

A drill runs under the session's lease for backups, in a slot of the restore points, and gives way to what saves
something. A store that is away, or a lack of room, is no failed drill: it is repeated, and told by how old the oldest
proof is. A point that does not come back as it was is marked broken, and a new one is asked for, in a fresh repository.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from app.core.composition import Core
from app.core.errors import RetryableError, SessionError, SessionNotFound, StateUnavailable, Superseded
from app.core.redis import keys, task_queue
from app.core.restore_points.drilling import due_before, most_at_once
from app.core.restore_points.schedule import has_files
from app.core.sessions.model import GONE, Record, iso
from app.private_text import without_private
from workers import metrics, outcomes
from workers.lifecycle import Lifecycle, pause
from workers.point_making import kept_events
from workers.points import FIRST_PAUSE, LONGEST_PAUSE
from workers.runtime.base import Check, Proof, ProofOrder, Runtime
from workers.wanted import deleted, while_wanted

log = logging.getLogger(__name__)

NO_LIST = "The store has no list of keys: it is not the one that restore points were made in. Mount that one."


class Drills:
    """Drills, through a runtime. Times are seconds since the epoch."""

    def __init__(
        self, core: Core, runtime: Runtime, lifecycle: Lifecycle, clock: Callable[[], float] = time.time
    ) -> None:
        self._core = core
        self._store = core.store
        self._index = core.restore_points
        self._settings = core.settings
        self._runtime = runtime
        self._lifecycle = lifecycle
        self._clock = clock
        slots = [keys.POINT_SLOT.format(number=n) for n in range(core.settings.restore_points_at_once)]
        # One is left to points, which take the first that is free.
        self._slots = slots[1:] or slots

    def sweep(self) -> None:
        """Ask for the drills that are due, the oldest first, and send those whose time has come."""
        now, cycle = self._clock(), self._settings.drill_cycle
        if not (cycle and self._settings.archive_key):
            self._store.clear(keys.DRILLS)
            self._store.clear(keys.DRILL_REQUESTS)
            return
        asked = self._store.size(keys.DRILL_REQUESTS)
        most = most_at_once(self._store.size(keys.DRILLS), cycle)
        for record in self._store.due(keys.DRILLS, due_before(cycle, now), limit=asked + most):
            if record.status in GONE:
                self._forget(record.uuid)
            elif most and not self._store.pending(keys.DRILL_REQUESTS, record.uuid):
                self._store.schedule(keys.DRILL_REQUESTS, record.uuid, now)
                most -= 1
        self._send_due()

    def drill(self, uuid: str) -> None:
        """Drill the session's newest restore point, if a drill of it is asked for and a slot is free."""
        with self._core.leases.hold_one(self._slots) as free:
            if not free:
                self._store.defer(keys.DRILL_REQUESTS, uuid, self._clock())
                return
            try:
                with self._core.attempts.begin_drill(uuid) as record:
                    if record is not None:
                        self._attempt(record)
            finally:
                self._lifecycle.resend_waiting(uuid)
                if self._is_next(keys.POINT_REQUESTS, uuid):
                    self._core.tasks.send(task_queue.POINT, uuid)
        self._send_due()

    def _send_due(self) -> None:
        """Send the requests whose time has come into the slots that no point waits for."""
        now = self._clock()
        free = sum(not self._core.leases.held(each) for each in self._slots)
        free -= self._store.overdue(keys.POINT_REQUESTS, now)
        for record in self._store.due(keys.DRILL_REQUESTS, now, limit=free) if free > 0 else ():
            self._store.defer(keys.DRILL_REQUESTS, record.uuid, now + self._settings.stale_after)
            self._core.tasks.send(task_queue.DRILL, record.uuid)

    def _attempt(self, record: Record) -> None:
        uuid, begun = record.uuid, self._clock()
        # First, for a worker that dies.
        self._store.defer(keys.DRILL_REQUESTS, uuid, begun + pause(record.drill_tries, FIRST_PAUSE, LONGEST_PAUSE))
        metrics.worker_figures().tried(task_queue.DRILL)
        known = self._index.of(uuid)
        if known and known[0].broken and has_files(record):
            # A new point takes its place. It is tried again then.
            return
        point = next((each for each in known if not each.broken), None)
        if point is None or record.status in GONE:
            self._forget(uuid)
            return
        order = ProofOrder(uuid=uuid, id=point.id, files=point.files, size=point.size)
        try:
            self._refuse_another_store(uuid)
            proof = self._runtime.prove_point(uuid, order, check=self._check(record))
        except (Superseded, SessionNotFound) as error:
            log.info("drill put off: %s", error, extra={"uuid": uuid})
        except StateUnavailable:
            raise
        except SessionError as error:
            self._note_late(record, str(error), begun, error.code)
        except Exception as error:
            self._note_late(record, f"an internal error ({type(error).__name__})", begun)
            raise
        else:
            if proof.proven:
                self._note_proven(record, proof, begun)
            elif self._index.get(uuid, point.id) is not None:
                self._note_failed(record, proof, begun)

    def _refuse_another_store(self, uuid: str) -> None:
        """Raises `RetryableError` when the store lacks the list that each point is preceded by: it is another one, or
        not mounted. In the right one, makes the folder that a Job mounts, which somebody may have deleted."""
        if not self._core.backup_store.key_ids():
            raise RetryableError(NO_LIST)
        self._core.backup_store.prepare(uuid)

    def _check(self, record: Record) -> Check:
        """Raises `Superseded` when the session is deleted, or a backup or a restore point of it is to be made."""
        wanted = while_wanted(self._store, record, deleted)
        looked = 0.0

        def check() -> None:
            nonlocal looked
            wanted()
            if time.monotonic() < looked:
                return
            looked = time.monotonic() + 1.0
            if any(self._is_next(each, record.uuid) for each in (keys.POINT_REQUESTS, keys.BACKUP_REQUESTS)):
                raise Superseded(f"The files of session {record.uuid} are to be saved first.")

        return check

    def _is_next(self, requests: str, uuid: str) -> bool:
        """Whether a request is to be carried out now; one whose attempts failed comes later."""
        due = self._store.deadline(requests, uuid)
        return due is not None and due <= self._clock() + self._settings.stale_after

    def _forget(self, uuid: str) -> None:
        """There is nothing to prove. The next restore point is due for a drill again."""
        for each in (keys.DRILLS, keys.DRILL_REQUESTS):
            self._store.defer(each, uuid, 0.0)

    def _note_proven(self, record: Record, proof: Proof, begun: float) -> None:
        uuid, now = record.uuid, self._clock()
        self._index.mark_proven(uuid, proof.id, now)
        self._store.change(uuid, now, last_proven=now, drill_tries=0)
        self._store.schedule(keys.DRILLS, uuid, now)
        self._store.defer(keys.DRILL_REQUESTS, uuid, 0.0)
        self._core.counters.count("drills_proven")
        outcomes.succeeded(self._core.counters, record, "drill", now, since=begun, phases=proof.ms)

    def _note_failed(self, record: Record, proof: Proof, begun: float) -> None:
        """The point is broken. All others are looked at with the next one, which is asked for at once."""
        uuid, now = record.uuid, self._clock()
        self._index.mark_broken(uuid, [proof.id])
        reason = proof.failure or f"{proof.different} files did not come back as they were."
        told = {"restore_point": proof.id, "reason": reason, "differences": list(proof.differences)}
        change: dict[str, Any] = {"point_at": 0.0, "point_checked_at": 0.0, "drill_tries": 0}
        self._store.change(uuid, now, event=("drill_failed", told), events_ttl=kept_events(record), **change)
        self._store.defer(keys.DRILL_REQUESTS, uuid, 0.0)
        self._core.counters.count("drills_failed")
        self._core.counters.count("points_broken")
        # What differs names files, so the log says how many.
        outcomes.failed(self._core.counters, record, reason, now, "drill", begun, "drill_failed")
        if has_files(record):
            # It is sent when this attempt has ended, which holds the lease that a point needs.
            self._store.request_point(uuid, now, now + self._settings.stale_after, "interval")

    def _note_late(self, record: Record, why: str, begun: float, code: str = "") -> None:
        """It is repeated; that it is late is told by the age of the oldest proof."""
        log.warning(
            "drill put off: %s", without_private(why), extra={"uuid": record.uuid, "code": code, "since": iso(begun)}
        )
        self._core.counters.count("drills_put_off")
