"""Carrying out what is wanted of a session, and keeping count of the attempts.

The intent in the record is the guarantee, a message only a hint. An attempt begins by being counted in the record and
ends by settling the intent, by leaving it to the watcher, or by putting it off: an attempt whose worker died did none
of these. After `MAX_DELIVERIES` of those the intent is given up: the session is `failed`, with a dead letter.

An attempt may end anywhere, and a newer intent takes over from whatever state it left; what that asks of each step
stands in workers/steps.py.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.sessions import keys, queue
from app.sessions.core import Core
from app.sessions.errors import (
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
from app.sessions.model import Record, Status
from workers.runtime.base import Runtime
from workers.steps import Steps

log = logging.getLogger(__name__)

AWAY = (StateUnavailable, RuntimeUnavailable)
"""What is no failure of an attempt: Redis or the runtime is away, however often."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""s until an attempt that failed is followed by the next: doubled from the first to the longest."""

ENDING_PAUSE = 1.0
"""s until a workspace that was told to stop is looked at again."""

ENDING_LIMIT = 120.0
"""s from the request in which it is no failure of an attempt that a workspace is still ending: far beyond any grace."""

UNTRY_TRIES, UNTRY_PAUSE = 4, 0.5
"""How often, and s between, it is tried to take an attempt back that met a Redis that was away: one that was restarted
is there again by then."""


@dataclass(frozen=True)
class Account:
    """Where attempts are counted: the record's field `tries`, and `due`, the key that says when the next is made."""

    tries: str
    due: str


INTENT = Account("tries", keys.INTENTS)
BACKUP = Account("backup_tries", keys.BACKUP_REQUESTS)


class Lifecycle:
    """Acts on sessions through a runtime. Times are seconds since the epoch."""

    def __init__(self, core: Core, runtime: Runtime, clock: Callable[[], float] = time.time) -> None:
        self._core = core
        self._store = core.store
        self._steps = Steps(core, runtime, clock)
        self._clock = clock
        self._most = core.settings.max_deliveries

    def carry_out(self, uuid: str, generation: int) -> None:
        """Do what the session's intent `generation` asks for, unless a newer one exists or another worker is at it.
        A `RetryableError` is raised once the next attempt is put off to its time; a `PermanentError` makes the session
        `failed`."""
        try:
            with self._core.leases.begin(uuid, generation) as record:
                if record is not None:
                    self._attempt(record, INTENT, self._act, self._give_up)
        finally:
            self._pass_on(uuid)

    def back_up(self, uuid: str) -> None:
        """Carry out a requested backup. Failing for good, it is reported as an event and the request dropped."""
        try:
            with self._core.leases.begin_backup(uuid) as record:
                if record is not None:
                    self._attempt(record, BACKUP, self._back_up, self._give_up_backup)
        finally:
            # However it went: a delete that came meanwhile has been waiting for it.
            self._pass_on(uuid)

    def lose(self, record: Record) -> None:
        """Make a session whose files are gone `failed`; the next wake brings back those of its newest backup."""
        newest = self._core.backups.newest_of(record.uuid)
        if newest is None:
            reason = "Its files are gone, and there is no backup of them. Wake it to start with none, or delete it."
        else:
            reason = f"Its files are gone. Wake it to get those of its newest backup, {newest.name}, or delete it."
        self.fail(record, reason, provisioned=False, restore_from=newest.name if newest else "")

    def fail(self, record: Record, reason: str, *, reason_code: str = "", **fields: object) -> None:
        """Make the session `failed`, if nothing was asked of it and nobody has been at it since `record`."""
        try:
            self._store.change(
                record.uuid,
                self._clock(),
                to=Status.FAILED,
                expect={"generation": record.generation, "lease": record.lease},
                settle=True,
                reason=reason,
                reason_code=reason_code,
                **fields,
            )
            self._core.fleet.count("sessions_failed")
        except (Superseded, IllegalState, SessionNotFound) as error:
            log.info("not marked failed: %s", error, extra={"uuid": record.uuid})

    def _attempt(
        self, record: Record, account: Account, act: Callable[[Record], None], give_up: Callable[[Record, str], None]
    ) -> None:
        """One attempt, counted in `account`; what fails too often, or as nothing of ours should, is given up."""
        tries = getattr(record, account.tries)
        if tries > self._most:
            give_up(record, f"it was tried {self._most} times and its worker died each time")
            return
        try:
            act(record)
        except AWAY:
            self._untry(record, account.tries, tries)
            raise
        except RetryableError as error:
            waits = isinstance(error, StillEnding) and self._clock() - record.requested_at < ENDING_LIMIT
            if waits:
                self._untry(record, account.tries, tries)
            elif tries >= self._most:
                give_up(record, str(error))
                return
            self._store.defer(account.due, record.uuid, self._clock() + (ENDING_PAUSE if waits else _pause(tries)))
            raise
        except Exception as error:
            give_up(record, f"an internal error, {type(error).__name__}")
            raise

    def _act(self, record: Record) -> None:
        try:
            self._steps.act(record)
        except (Superseded, IllegalState) as error:
            # Illegal: another worker at the same intent, one that lost its lease unnoticed, ended it otherwise.
            log.info("superseded: %s", error, extra={"uuid": record.uuid, "generation": record.generation})
            self._take_up_again(record)
        except SessionNotFound:
            log.info("no such session any more", extra={"uuid": record.uuid})
        except FilesGone:
            self.lose(record)
        except BackupNotFound as error:
            self.fail(record, f"{error} Its files were to come from it: put it back and wake, or delete.")
        except PermanentError as error:
            self.fail(record, str(error), reason_code=error.code)

    def _back_up(self, record: Record) -> None:
        uuid = record.uuid
        try:
            self._steps.back_up(record)
        except (Superseded, SessionNotFound) as error:
            log.info("backup broken off: %s", error, extra={"uuid": uuid})
        except PermanentError as error:
            self._report_failed_backup(record, str(error))
        if not self._store.settle_backup(uuid, record.backup_asked):
            # It was asked for again after this one had begun: what was written since is in none.
            self._core.tasks.send(queue.BACKUP, uuid, request_id=record.request_id)

    def _give_up(self, record: Record, why: str) -> None:
        self._bury(record.task, [record.uuid, record.generation], why)
        self.fail(record, f"The {record.task.split('.')[-1]} task was given up: {why}")

    def _give_up_backup(self, record: Record, why: str) -> None:
        self._bury(queue.BACKUP, [record.uuid], why)
        self._report_failed_backup(record, why)
        self._store.settle_backup(record.uuid, record.backup_asked)

    def _bury(self, task: str, arguments: list[str | int], why: str) -> None:
        log.error("task given up: %s", why, extra={"task": task, "task_args": arguments})
        self._core.fleet.bury({"task": task, "args": arguments, "why": why, "at": self._clock()})

    def _report_failed_backup(self, record: Record, reason: str) -> None:
        """Say that a requested backup came to nothing; the session is as it was."""
        self._core.fleet.count("backups_failed")
        self._core.events.append(record.uuid, "backup", {"status": "failed", "reason": reason})

    def _untry(self, record: Record, field: str, tries: int) -> None:
        """Take an attempt back that could not be made. Where that can't be written either, it stays counted."""
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

    def _take_up_again(self, record: Record) -> None:
        """Something else than the intent changed under the attempt, as a backup that was deleted: begin anew."""
        try:
            expect = {"generation": record.generation, "lease": record.lease}
            self._store.change(record.uuid, self._clock(), expect=expect, missed=record.generation)
        except (Superseded, SessionNotFound):
            return

    def _pass_on(self, uuid: str) -> None:
        """Enqueue the newest intent again if its message found a lease of ours taken. Asked when that was let go, on
        either side: of two that end at once the later sees it, and only one of them enqueues."""
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
    """Seconds until the next attempt after so many: longer each time, and not the same for all that failed at once."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1))
    return random.uniform(longest / 2, longest)
