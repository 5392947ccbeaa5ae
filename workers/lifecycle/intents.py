"""Carries out the intents of sessions, and counts the attempts.

The intent in the record is the guarantee, a message only a hint. An attempt is counted in the record when it begins. It
ends by settling the intent, by leaving that to the observer, by giving way to a backup, or by deferring the next
attempt; if its worker dies it does none of these. After `MAX_ATTEMPTS` such attempts the intent is given up: the
session is `failed`, and a dead letter is written.

The message of a newer intent may find the lease taken. So who releases a lease compares generations, and sends what is
left.

An attempt may end anywhere, and a newer intent continues from the state it left; workers/lifecycle/steps.py says what
that requires of each step.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from app.core.composition import Core
from app.core.errors import (
    ArchiveError,
    BackupNotFound,
    FilesGoing,
    FilesGone,
    IllegalState,
    PermanentError,
    PointsBroken,
    RetryableError,
    RuntimeUnavailable,
    SessionError,
    SessionNotFound,
    StateUnavailable,
    StillEnding,
    Superseded,
)
from app.core.redis import keys, task_queue
from app.core.redis.dead_letters import DeadLetter
from app.core.sessions.attempts import MAX_ATTEMPTS
from app.core.sessions.change import Intervals
from app.core.sessions.model import GONE, UP, Record, Status
from app.core.sessions.reason_codes import ReasonCode
from app.process import logs
from app.process.private_text import without_private
from workers import worker_metrics
from workers.lifecycle.archiving import give_up
from workers.lifecycle.ended import failed, session_failed
from workers.lifecycle.lost_files import LostFiles
from workers.lifecycle.notify import notify
from workers.lifecycle.place import Place
from workers.lifecycle.steps import Steps
from workers.runtime.base import Observation, Runtime

log = logging.getLogger(__name__)

UNAVAILABLE = (StateUnavailable, RuntimeUnavailable)
"""Errors that do not count as a failed attempt, however often: Redis or the runtime is unavailable."""

UNREADABLE = (ArchiveError, BackupNotFound, PointsBroken)
"""Errors of a copy that can't be read; their subclasses, as for a full disk, say nothing about the copy."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""s until the attempt after a failed one: doubled from the first to the longest."""

FRESH = 150.0
"""s that a restore point of files which are being deleted is fresh: two reconcile sweeps look meanwhile."""

CLUSTER_SECOND = 1.0
"""s that a cluster's times are exact to."""

ENDING_PAUSE = 1.0
"""s until the next look at a workspace that is stopping."""

ENDING_LIMIT = 120.0
"""s from the request in which a workspace that is still stopping does not count as a failed attempt: far beyond any
grace period."""

UNTRY_TRIES, UNTRY_PAUSE = 4, 0.5
"""How often, and s between, uncounting an attempt is tried while Redis is unavailable: long enough for a restart."""


@dataclass(frozen=True)
class Counter:
    """Where attempts are counted: in the record's field `tries`; `due` is the key with the time of the next attempt."""

    tries: str
    due: str


INTENT = Counter("tries", keys.INTENTS)
BACKUP = Counter("backup_tries", keys.BACKUP_REQUESTS)


GiveUp = Callable[[Record, str, str], None]
"""Takes the record, why, and the kind of the last error, "" if there was none."""


class Lifecycle:
    """Acts on sessions through a runtime. Times are seconds since the epoch."""

    def __init__(self, core: Core, runtime: Runtime, clock: Callable[[], float] = time.time) -> None:
        self._core = core
        self._store = core.store
        self._runtime = runtime
        self._steps = Steps(core, runtime, clock)
        self._lost = LostFiles(core, Place(core.redis, runtime), self.fail, clock)
        self._clock = clock

    def carry_out(self, uuid: str, generation: int) -> None:
        """Do what the session's intent `generation` asks for, unless a newer one exists or another worker does it.
        Raises a `RetryableError` after scheduling the next attempt; a `PermanentError` makes the session `failed`."""
        record, put_off, changed = None, True, False
        try:
            with self._core.attempts.begin(uuid, generation) as record:
                if record is not None:
                    changed = self._attempt(record, INTENT, self._act, self._give_up)
            put_off = False
        finally:
            if record is not None:
                self._resend_left(record, put_off=put_off, changed=changed)

    def resend_waiting(self, uuid: str) -> None:
        """Send what waited for the backups' lease, which was just released."""
        self._resend_intent(uuid)
        if self._store.pending(keys.BACKUP_REQUESTS, uuid):
            self._core.tasks.send(task_queue.BACKUP, uuid)

    def back_up(self, uuid: str) -> None:
        """Carry out a requested backup. A permanent failure is reported as an event and drops the request."""
        try:
            with self._core.attempts.begin_backup(uuid) as record:
                if record is not None:
                    self._attempt(record, BACKUP, self._back_up, self._give_up_backup)
        finally:
            # Even after a failure: a delete that came meanwhile waits for this.
            self._resend_intent(uuid)

    def check_files(self, uuid: str) -> None:
        """Look whether the session's files are gone, and bring it back from its newest copy if they are. Files that go
        with the running workspace are saved first: once a restore point is fresh, the session is brought back from
        that."""
        try:
            record = self._store.get(uuid)
            if not record.provisioned:
                return
            seen = self._runtime.observe(uuid)
            if seen is None or seen.code == FilesGone.code:
                self._lost.bring_back(record)
            elif seen.code == FilesGoing.code:
                self._leave_volume(record, seen)
        except SessionError as error:
            log.info("not looked for lost files: %s", error, extra={"uuid": uuid})

    def _leave_volume(self, record: Record, seen: Observation) -> None:
        """Bring the session back from a restore point that was made since its volume was deleted; ask for one before
        that."""
        saved = record.point_at > seen.files_deleted_at + CLUSTER_SECOND
        if saved and self._clock() - record.point_at < FRESH:
            self._lost.bring_back(record)
        elif self._core.settings.archive_key:
            self._core.sessions.ask_for_point(record.uuid, "interval")
        elif record.status in UP:
            self.fail(record, seen.failure, reason_code=seen.code)

    def replace_volume(self, record: Record) -> None:
        """Restore the newest copy of a session's files into another volume: its own is out of reach, and kept."""
        try:
            self._lost.bring_back(record, out_of_reach=True)
        except RuntimeUnavailable as error:
            log.info("a volume is not replaced: %s", error, extra={"uuid": record.uuid})

    def fail(self, record: Record, reason: str, *, reason_code: str = "", **fields: object) -> None:
        """Make the session `failed`, unless it has a newer intent or another attempt began since `record`."""
        now = self._clock()
        try:
            self._store.change(
                record.uuid,
                now,
                to=Status.FAILED,
                expect={"generation": record.generation, "lease": record.lease},
                settle=True,
                reason=reason,
                reason_code=reason_code,
                **fields,
            )
            notify(self._core, session_failed(record, reason, now, reason_code))
        except (Superseded, IllegalState, SessionNotFound) as error:
            log.info("not marked failed: %s", error, extra={"uuid": record.uuid})

    def _attempt(self, record: Record, counter: Counter, act: Callable[[Record], bool], give_up: GiveUp) -> bool:
        """One attempt, counted in `counter`; answers what `act` does. Gives up after too many, and after an unexpected
        error."""
        tries = getattr(record, counter.tries)
        worker_metrics.worker_figures().tried(task_queue.BACKUP if counter is BACKUP else record.task)
        if tries > MAX_ATTEMPTS:
            give_up(record, f"its worker died in each of {MAX_ATTEMPTS} attempts", "")
            return False
        try:
            return act(record)
        except UNAVAILABLE:
            self._uncount(record, counter.tries, tries)
            raise
        except RetryableError as error:
            waits = isinstance(error, StillEnding) and self._clock() - record.requested_at < ENDING_LIMIT
            if waits:
                self._uncount(record, counter.tries, tries)
            elif tries >= MAX_ATTEMPTS:
                give_up(record, str(error), type(error).__name__)
                return False
            self._store.defer(counter.due, record.uuid, self._clock() + (ENDING_PAUSE if waits else pause(tries)))
            raise
        except Exception as error:
            give_up(record, f"an internal error ({type(error).__name__})", type(error).__name__)
            raise

    def _act(self, record: Record) -> bool:
        """One attempt at the intent; whether the record changed under it."""
        try:
            self._steps.act(record)
        except (Superseded, IllegalState) as error:
            # Illegal: a worker that lost its lease unnoticed has settled the same intent in another way.
            log.info("superseded: %s", error, extra={"uuid": record.uuid, "generation": record.generation})
            return True
        except SessionNotFound:
            log.info("the session no longer exists", extra={"uuid": record.uuid})
        except FilesGone:
            self._lost.bring_back(record)
        except (ArchiveError, BackupNotFound) as error:
            self._cannot_restore(record, error)
        except PermanentError as error:
            if not self._stays_asleep(record, str(error)):
                self.fail(record, str(error), reason_code=error.code)
        return False

    def _stays_asleep(self, record: Record, why: str) -> bool:
        """A session that can't be archived sleeps on, and is looked at again later; whether it was to be archived."""
        if record.status is not Status.SLEEPING or record.task != task_queue.ARCHIVE:
            return False
        now = self._clock()
        expect = {"generation": record.generation, "lease": record.lease}
        with suppress(Superseded, SessionNotFound):
            self._store.change(record.uuid, now, expect=expect, settle=True)
            give_up(self._core, record, now)
            notify(self._core, failed("archive", record, why, now))
        return True

    def _cannot_restore(self, record: Record, error: PermanentError) -> None:
        """A backup or a restore point can't be read. The files of a lost volume come from the next older copy then,
        and those of an archived session. One without another copy keeps its reference: the store may have it again."""
        if self._stays_asleep(record, str(error)):
            return
        lost = (record.files_of or record.archived_at) and record.status not in GONE
        if lost and type(error) in UNREADABLE and self._lost.take_older(record, error):
            return
        if isinstance(error, BackupNotFound):
            self.fail(
                record,
                f"{error} The session was to start with its files: put the backup back and wake it, or delete it.",
                reason_code=error.code,
            )
        else:
            self.fail(record, str(error), reason_code=error.code)

    def _back_up(self, record: Record) -> bool:
        uuid, begun = record.uuid, self._clock()
        try:
            self._steps.back_up(record)
        except (Superseded, SessionNotFound) as error:
            log.info("backup cancelled: %s", error, extra={"uuid": uuid})
        except PermanentError as error:
            self._report_failed_backup(record, str(error), begun, error.code)
        if not self._store.settle_backup(uuid, record.backup_asked, self._clock()):
            # It was requested again after this one began, so later changes are in no backup.
            self._core.tasks.send(task_queue.BACKUP, uuid, request_id=record.request_id)
        return False

    def _give_up(self, record: Record, why: str, error: str) -> None:
        self._add_dead_letter(record, record.task, (record.uuid, record.generation), why, error, record.tries)
        reason = f"The {record.task.split('.')[-1]} task was given up: {why}"
        if self._stays_asleep(record, reason):
            return
        self.fail(record, reason, reason_code=ReasonCode.GIVEN_UP, ledger=self._end_of(record))

    def _end_of(self, record: Record) -> Intervals | None:
        """A stop that was given up may have ended the processes without noting it."""
        try:
            seen = self._runtime.observe(record.uuid) if record.stopping else None
        except SessionError:
            return None  # the reconcile sweep will look
        running = not record.stopping or (seen is not None and seen.running)
        return None if running else Intervals(ran_until=self._clock())

    def _give_up_backup(self, record: Record, why: str, error: str) -> None:
        self._add_dead_letter(record, task_queue.BACKUP, (record.uuid,), why, error, record.backup_tries)
        self._report_failed_backup(record, why)
        self._store.settle_backup(record.uuid, record.backup_asked, self._clock())

    def _add_dead_letter(
        self, record: Record, task: str, args: tuple[str | int, ...], why: str, error: str, tries: int
    ) -> None:
        why = without_private(why)
        # A request for a backup is no intent, so its task names it, not the record.
        request_id = logs.request_id.get() if task == task_queue.BACKUP else record.request_id
        # An attempt is counted when it begins; the one that only gives up is none.
        tries, now = min(tries, MAX_ATTEMPTS), self._clock()
        log.error("task given up: %s", why, extra={"task": task, "task_args": list(args)})
        self._core.dead_letters.add(
            DeadLetter(task=task, args=args, why=why, error=error, tries=tries, request_id=request_id, at=now)
        )

    def _report_failed_backup(self, record: Record, reason: str, begun: float = 0.0, code: str = "") -> None:
        """Report that a requested backup failed; the session is unchanged."""
        notify(self._core, failed("backup", record, reason, self._clock(), since=begun, code=code))
        told = ("backup", {"status": "failed", "reason": reason})
        with suppress(SessionNotFound):
            self._store.change(
                record.uuid, self._clock(), backup_ended=record.backup_asked, backup_error=reason, event=told
            )

    def _uncount(self, record: Record, field: str, tries: int) -> None:
        """Uncount an attempt that could not be made. It stays counted if that cannot be written either."""
        for _ in range(UNTRY_TRIES):
            try:
                expect = {"generation": record.generation, "lease": record.lease, field: tries}
                self._store.change(record.uuid, self._clock(), expect=expect, **{field: tries - 1})  # type: ignore[arg-type]
            except StateUnavailable:
                time.sleep(UNTRY_PAUSE)
            except SessionError:
                return
            else:
                return

    def _resend_left(self, begun: Record, *, put_off: bool, changed: bool) -> None:
        """After the release of an attempt's lease, send what is left: a newer intent, whose message found the lease
        taken, or a task that the attempt handed on to; and its own intent again if the record `changed` under it, or if
        it gave way to a backup that has ended since. One that was `put_off` is sent when it is due."""
        record = self._unfinished(begun.uuid)
        if record is None:
            return
        newer = (record.generation, record.task) != (begun.generation, begun.task)
        gave_way = not put_off and not record.tries
        if newer or changed or (gave_way and not self._backing_up(record)):
            self._core.sessions.resend(record)

    def _resend_intent(self, uuid: str) -> None:
        """After the release of the backups' lease, send the intent that may have given way to its holder: one of which
        no attempt counts. A message too many does no harm."""
        record = self._unfinished(uuid)
        if record is not None and not record.tries and not self._backing_up(record):
            self._core.sessions.resend(record)

    def _unfinished(self, uuid: str) -> Record | None:
        """The record, if its intent waits for a worker, and none is at it."""
        try:
            record = self._store.get(uuid)
        except SessionNotFound:
            return None
        if record.settled >= record.generation or record.started_at:
            return None
        return None if self._core.leases.held(keys.LEASE.format(uuid=uuid)) else record

    def _backing_up(self, record: Record) -> bool:
        return self._core.leases.held(keys.BACKUP_LEASE.format(uuid=record.uuid))


def pause(tries: int, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> float:
    """Seconds until the next attempt: doubled from the first to the longest, and random, so that not all attempts that
    failed at once repeat at once."""
    # A power of 30 is beyond every longest one; far higher ones are no floats.
    most = min(longest, first * 2.0 ** min(tries - 1, 30))
    return random.uniform(most / 2, most)
