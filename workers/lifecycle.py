"""Carries out the intents of sessions, and counts the attempts.

The intent in the record is the guarantee, a message only a hint. An attempt is counted in the record when it begins. It
ends by settling the intent, by leaving that to the observer, or by deferring the next attempt; if its worker dies it
does none of these. After `MAX_DELIVERIES` such attempts the intent is given up: the session is `failed`, and a dead
letter is written.

An attempt may end anywhere, and a newer intent continues from the state it left; workers/steps.py says what that
requires of each step.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.core.composition import Core
from app.core.errors import (
    BackupNotFound,
    FilesGone,
    IllegalState,
    PermanentError,
    RetryableError,
    RuntimeUnavailable,
    SessionError,
    SessionNotFound,
    StateUnavailable,
    StillEnding,
    Superseded,
)
from app.core.redis import keys, task_queue
from app.core.sessions.change import Intervals
from app.core.sessions.model import Record, Status
from app.private_text import without_private
from workers import metrics, outcomes
from workers.runtime.base import Runtime
from workers.steps import Steps

log = logging.getLogger(__name__)

UNAVAILABLE = (StateUnavailable, RuntimeUnavailable)
"""Errors that do not count as a failed attempt, however often: Redis or the runtime is unavailable."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""s until the attempt after a failed one: doubled from the first to the longest."""

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


class Lifecycle:
    """Acts on sessions through a runtime. Times are seconds since the epoch."""

    def __init__(self, core: Core, runtime: Runtime, clock: Callable[[], float] = time.time) -> None:
        self._core = core
        self._store = core.store
        self._runtime = runtime
        self._steps = Steps(core, runtime, clock)
        self._clock = clock
        self._most = core.settings.max_deliveries

    def carry_out(self, uuid: str, generation: int) -> None:
        """Do what the session's intent `generation` asks for, unless a newer one exists or another worker does it.
        Raises a `RetryableError` after scheduling the next attempt; a `PermanentError` makes the session `failed`."""
        try:
            with self._core.attempts.begin(uuid, generation) as record:
                if record is not None:
                    self._attempt(record, INTENT, self._act, self._give_up)
        finally:
            self._resend_missed(uuid)

    def back_up(self, uuid: str) -> None:
        """Carry out a requested backup. A permanent failure is reported as an event and drops the request."""
        try:
            with self._core.attempts.begin_backup(uuid) as record:
                if record is not None:
                    self._attempt(record, BACKUP, self._back_up, self._give_up_backup)
        finally:
            # Even after a failure: a delete that came meanwhile waits for this.
            self._resend_missed(uuid)

    def lose(self, record: Record) -> None:
        """Make a session whose files are gone `failed`; the next wake restores its newest backup."""
        newest = self._core.backups.newest_of(record.uuid)
        if newest is None:
            reason = "The session's files are gone and it has no backup. Wake it to start empty, or delete it."
        else:
            reason = f"The session's files are gone. Wake it to restore its newest backup, {newest.name}, or delete it."
        now = self._clock()
        ended = Intervals(ran_until=now, kept_until=now)
        self.fail(record, reason, provisioned=False, restore_from=newest.name if newest else "", ledger=ended)

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
            self._core.counters.count("sessions_failed")
            outcomes.failed(self._core.counters, record, reason, now)
        except (Superseded, IllegalState, SessionNotFound) as error:
            log.info("not marked failed: %s", error, extra={"uuid": record.uuid})

    def _attempt(
        self, record: Record, counter: Counter, act: Callable[[Record], None], give_up: Callable[[Record, str], None]
    ) -> None:
        """One attempt, counted in `counter`. Gives up after too many, and after an unexpected error."""
        tries = getattr(record, counter.tries)
        metrics.worker_figures().tried(task_queue.BACKUP if counter is BACKUP else record.task)
        if tries > self._most:
            give_up(record, f"its worker died in each of {self._most} attempts")
            return
        try:
            act(record)
        except UNAVAILABLE:
            self._uncount(record, counter.tries, tries)
            raise
        except RetryableError as error:
            waits = isinstance(error, StillEnding) and self._clock() - record.requested_at < ENDING_LIMIT
            if waits:
                self._uncount(record, counter.tries, tries)
            elif tries >= self._most:
                give_up(record, str(error))
                return
            self._store.defer(counter.due, record.uuid, self._clock() + (ENDING_PAUSE if waits else _pause(tries)))
            raise
        except Exception as error:
            give_up(record, f"an internal error ({type(error).__name__})")
            raise

    def _act(self, record: Record) -> None:
        try:
            self._steps.act(record)
        except (Superseded, IllegalState) as error:
            # Illegal: a worker that lost its lease unnoticed has settled the same intent in another way.
            log.info("superseded: %s", error, extra={"uuid": record.uuid, "generation": record.generation})
            self._mark_missed(record)
        except SessionNotFound:
            log.info("the session no longer exists", extra={"uuid": record.uuid})
        except FilesGone:
            self.lose(record)
        except BackupNotFound as error:
            self.fail(
                record,
                f"{error} The session was to start with its files: put the backup back and wake it, or delete it.",
            )
        except PermanentError as error:
            self.fail(record, str(error), reason_code=error.code)

    def _back_up(self, record: Record) -> None:
        uuid, begun = record.uuid, self._clock()
        try:
            self._steps.back_up(record)
        except (Superseded, SessionNotFound) as error:
            log.info("backup cancelled: %s", error, extra={"uuid": uuid})
        except PermanentError as error:
            self._report_failed_backup(record, str(error), begun)
        if not self._store.settle_backup(uuid, record.backup_asked):
            # It was requested again after this one began, so later changes are in no backup.
            self._core.tasks.send(task_queue.BACKUP, uuid, request_id=record.request_id)

    def _give_up(self, record: Record, why: str) -> None:
        self._add_dead_letter(record.task, [record.uuid, record.generation], why)
        self.fail(record, f"The {record.task.split('.')[-1]} task was given up: {why}", ledger=self._end_of(record))

    def _end_of(self, record: Record) -> Intervals | None:
        """A stop that was given up may have ended the processes without noting it."""
        try:
            seen = self._runtime.observe(record.uuid) if record.stopping else None
        except SessionError:
            return None  # the reconcile sweep will look
        running = not record.stopping or (seen is not None and seen.running)
        return None if running else Intervals(ran_until=self._clock())

    def _give_up_backup(self, record: Record, why: str) -> None:
        self._add_dead_letter(task_queue.BACKUP, [record.uuid], why)
        self._report_failed_backup(record, why)
        self._store.settle_backup(record.uuid, record.backup_asked)

    def _add_dead_letter(self, task: str, arguments: list[str | int], why: str) -> None:
        why = without_private(why)
        log.error("task given up: %s", why, extra={"task": task, "task_args": arguments})
        self._core.dead_letters.add({"task": task, "args": arguments, "why": why, "at": self._clock()})

    def _report_failed_backup(self, record: Record, reason: str, begun: float = 0.0) -> None:
        """Report that a requested backup failed; the session is unchanged."""
        outcomes.failed(self._core.counters, record, reason, self._clock(), "backup", begun)
        self._core.counters.count("backups_failed")
        self._core.events.append(record.uuid, "backup", {"status": "failed", "reason": reason})

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

    def _mark_missed(self, record: Record) -> None:
        """The record changed under the attempt without a newer intent, as by a deleted backup: send the intent
        again."""
        try:
            expect = {"generation": record.generation, "lease": record.lease}
            self._store.change(record.uuid, self._clock(), expect=expect, missed=record.generation)
        except (Superseded, SessionNotFound):
            return

    def _resend_missed(self, uuid: str) -> None:
        """Send the newest intent again if its message found a lease taken. Called after each release of a lease: of two
        attempts that end at once the later notices, and only one of them sends."""
        try:
            record = self._store.get(uuid)
            if record.settled >= record.generation or record.missed != record.generation:
                return
            if any(self._core.leases.held(each.format(uuid=uuid)) for each in (keys.LEASE, keys.BACKUP_LEASE)):
                return
            seen = {"generation": record.generation, "missed": record.missed}
            self._store.change(uuid, self._clock(), expect=seen, missed=0)
        except (SessionNotFound, Superseded):
            return
        self._core.sessions.resend(record)


def _pause(tries: int) -> float:
    """Seconds until the next attempt: longer each time, and random, so that not all attempts that failed at once repeat
    at once."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1))
    return random.uniform(longest / 2, longest)
