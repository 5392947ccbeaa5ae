"""Drills: restore points are proven by restoring them, each session's newest one at least once in `DRILL_CYCLE`.

A drill runs under the session's lease for backups, in a slot of the restore points, and gives way to what saves
something. A store that is away, or a lack of room, is no failed drill: it is repeated, and told by how old the oldest
proof is. A point that does not come back as it was is marked broken, and a new one is asked for, in a fresh repository.

An archived session has no files to make a new one of: its older points, which only the store knows, are drilled one
after the other, and it wakes from the first that is whole.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from app.core.composition import Core
from app.core.errors import PointsBroken, RetryableError, SessionError, SessionNotFound, StateUnavailable, Superseded
from app.core.redis import keys, task_queue
from app.core.restore_points.drilling import LATE, again_at, due_before, most_at_once
from app.core.restore_points.index import RestorePoint
from app.core.restore_points.names import parse, reference
from app.core.restore_points.schedule import has_files
from app.core.sessions.model import GONE, Record, Status, iso
from app.process.private_text import without_private
from workers import worker_metrics
from workers.lifecycle.action_counters import POINTS_BROKEN
from workers.lifecycle.ended import done, failed
from workers.lifecycle.intents import Lifecycle, pause
from workers.lifecycle.lost_files import newest_backup_at, older_copy
from workers.lifecycle.notify import notify
from workers.lifecycle.point_making import kept_events
from workers.lifecycle.stored_points import StoredPoints
from workers.lifecycle.wanted import deleted, while_wanted
from workers.points import FIRST_PAUSE, LONGEST_PAUSE
from workers.runtime.base import Check, Proof, ProofOrder, Runtime

log = logging.getLogger(__name__)

NO_LIST = "The store has no list of keys: it is not the one that restore points were made in. Mount that one."

NONE_WHOLE = "None of its restore points is whole. {next} The store may have lost objects: put them back."
FROM_BACKUP, FROM_NOTHING = "Its next wake restores the backup of {files_of}.", "It has no backup either."


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
        self._stored = StoredPoints(core, clock)
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
        most = most_at_once(self._store.size(keys.DRILLS), cycle, self._settings.drill_interval)
        for record in self._store.due(keys.DRILLS, due_before(cycle, now), limit=asked + most):
            if record.status in GONE:
                self._forget(record.uuid)
            elif most and not self._waits(record, now):
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

    def _waits(self, record: Record, now: float) -> bool:
        """Whether a drill of it is asked for. Only that of an archived session without a whole point may be far off."""
        due = self._store.deadline(keys.DRILL_REQUESTS, record.uuid)
        longest = self._settings.drill_cycle if record.archived_at else self._settings.stale_after
        return due is not None and due <= now + max(longest, LONGEST_PAUSE)

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
        worker_metrics.worker_figures().tried(task_queue.DRILL)
        known = self._index.of(uuid)
        if known and known[0].broken and has_files(record):
            # A new point takes its place. It is tried again then.
            return
        if record.status in GONE or not (record.archived_at or self._index.newest(uuid)):
            self._forget(uuid)
            return
        try:
            self._refuse_another_store(uuid)
            self._prove(record, begun)
        except (Superseded, SessionNotFound) as error:
            log.info("drill put off: %s", error, extra={"uuid": uuid})
        except StateUnavailable:
            raise
        except SessionError as error:
            self._note_late(record, str(error), begun, error.code)
        except Exception as error:
            self._note_late(record, f"an internal error ({type(error).__name__})", begun)
            raise

    def _prove(self, record: Record, begun: float) -> None:
        """Raises as `Runtime.prove_point`, and `Sidecars`."""
        point = self._newest(record)
        if point is None:
            self._note_none_whole(record)
            return
        order = ProofOrder(uuid=record.uuid, id=point.id, files=point.files, size=point.size)
        proof = self._runtime.prove_point(record.uuid, order, check=self._check(record))
        if proof.proven:
            self._note_proven(record, proof, begun)
        elif self._index.get(record.uuid, point.id) is not None:
            self._note_failed(record, proof, begun)

    def _newest(self, record: Record) -> RestorePoint | None:
        """The newest point that is not known to be broken. Where none of an archived session is, all are tried again:
        the store may have its objects back."""
        newest = self._index.newest(record.uuid)
        if newest is None and record.archived_at:
            self._stored.index_anew(record)
            newest = self._index.newest(record.uuid)
        return newest

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
        if record.archived_at:
            self._wake_from(record, proof.id, now)
        self._store.schedule(keys.DRILLS, uuid, now)
        self._store.defer(keys.DRILL_REQUESTS, uuid, 0.0)
        notify(self._core, done("drill", record, now, since=begun, phases=proof.ms))

    def _note_failed(self, record: Record, proof: Proof, begun: float) -> None:
        """The point is broken. All others are looked at with the next one, which is asked for at once."""
        uuid, now = record.uuid, self._clock()
        self._index.mark_broken(uuid, [proof.id])
        reason = proof.failure or f"{proof.different} files did not come back as they were."
        told = {"restore_point": proof.id, "reason": reason, "differences": list(proof.differences)}
        change: dict[str, Any] = {"point_at": 0.0, "point_checked_at": 0.0, "drill_tries": 0}
        self._store.change(uuid, now, event=("drill_failed", told), events_ttl=kept_events(record), **change)
        self._store.defer(keys.DRILL_REQUESTS, uuid, 0.0)
        # What differs names files, so the log says how many.
        notify(
            self._core,
            failed("drill", record, reason, now, since=begun, code="drill_failed", figures={POINTS_BROKEN: 1}),
        )
        if has_files(record):
            # It is sent when this attempt has ended, which holds the lease that a point needs.
            self._store.request_point(uuid, now, now + self._settings.stale_after, "interval")
        elif record.archived_at:
            self._go_on_with_older(record, now)

    def _go_on_with_older(self, record: Record, now: float) -> None:
        """Drill the next older point of an archived session at once. Its index had the one that it wakes from only."""
        self._stored.index(record)
        if self._index.newest(record.uuid) is None:
            self._note_none_whole(record)
        else:
            self._store.schedule(keys.DRILL_REQUESTS, record.uuid, now)

    def _note_none_whole(self, record: Record) -> None:
        """An archived session has no whole point: it is late until it has one, and tried again in each cycle."""
        uuid, now, cycle = record.uuid, self._clock(), self._settings.drill_cycle
        self._store.look_earlier(keys.DRILLS, uuid, now - LATE * cycle)
        self._store.schedule(keys.DRILL_REQUESTS, uuid, again_at(cycle, now))
        log.error("no restore point of an archived session is whole", extra={"uuid": uuid})
        source, files_of = older_copy(self._core, record)
        then = FROM_BACKUP.format(files_of=iso(files_of)) if source else FROM_NOTHING
        self._change_asleep(record, now, reason=NONE_WHOLE.format(next=then), reason_code=PointsBroken.code)

    def _wake_from(self, record: Record, point_id: str, now: float) -> None:
        """Let an archived session wake from the point that was proven, unless a newer backup is whole: a wake finds
        that by itself."""
        point = self._index.get(record.uuid, point_id)
        told = record.reason_code == PointsBroken.code
        change: dict[str, Any] = {"reason": "", "reason_code": ""} if told else {}
        source = reference(record.uuid, point_id)
        newer = bool(point and parse(record.restore_from) and point.created_at > newest_backup_at(self._core, record))
        # What is left of its workspace may be whole.
        if point and newer and source != record.restore_from and self._runtime.observe(record.uuid) is None:
            saved_at = {"point_at": point.created_at, "files_of": point.created_at}
            change |= {"restore_from": source, "point": point_id, **saved_at}
        if change:
            self._change_asleep(record, now, **change)

    def _change_asleep(self, record: Record, now: float, **change: Any) -> None:
        """Change an archived session, unless it wakes or has failed, and tell of it."""
        if record.status is not Status.SLEEPING or record.settled < record.generation:
            return
        why = {name: change.get(name, getattr(record, name)) or None for name in ("reason", "reason_code")}
        event, kept = ("state", {"status": record.status, **why}), kept_events(record)
        expect = {"generation": record.generation, "archived_at": record.archived_at}
        with suppress(Superseded, SessionNotFound):
            self._store.change(record.uuid, now, expect=expect, event=event, events_ttl=kept, **change)

    def _note_late(self, record: Record, why: str, begun: float, code: str = "") -> None:
        """It is repeated; that it is late is told by the age of the oldest proof."""
        log.warning(
            "drill put off: %s", without_private(why), extra={"uuid": record.uuid, "code": code, "since": iso(begun)}
        )
        self._core.counters.count("drills_put_off")
