"""The periodic tasks of beat: each looks for what is due and starts it.

A sweep reads one range of a sorted set and decides by the pure functions of app/core/sessions/idle_policy.py. Two
sweeps at once are harmless: a change is refused when the session has changed since it was read.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

from app.core.backups.backup_access import Direct
from app.core.backups.store import session_of
from app.core.composition import Core
from app.core.errors import (
    BackupInUse,
    FilesGoing,
    FilesGone,
    IllegalState,
    PermanentError,
    RestorePointsOff,
    RetryableError,
    SessionNotFound,
    Superseded,
)
from app.core.operations.overview import Sampler
from app.core.redis import keys, task_queue
from app.core.restore_points.recovery import Recovery
from app.core.service import seen_idle
from app.core.sessions.change import Intervals
from app.core.sessions.counted_time import CountedTime
from app.core.sessions.idle_policy import (
    MAX_EXPIRY_RECHECK,
    MAX_RECHECK,
    IdleVerdict,
    expiry_verdict,
    idle_verdict,
    not_ahead,
)
from app.core.sessions.model import GONE, UP, Record, Status, iso
from app.core.sessions.reason_codes import ReasonCode
from workers.clock import ClockGuard
from workers.lifecycle.archive_adoption import ArchiveAdoption, costs_of, take_back
from workers.lifecycle.archiving import Archiving
from workers.lifecycle.intents import Lifecycle
from workers.lifecycle.lost_files import out_of_reach
from workers.lifecycle.mark_active import look_again, mark_active
from workers.lifecycle.place import Place
from workers.lifecycle.steps import lacking_of
from workers.lifecycle.stored_backups import StoredBackups
from workers.lifecycle.stored_points import StoredPoints
from workers.runtime.base import Observation, Runtime, silent_editor

log = logging.getLogger(__name__)

STALE_PARTS = 86_400.0
"""s: a temporary backup file this old belongs to no running backup, which takes an hour at most."""

STORE_LOOK_EVERY = 86_400.0
"""s between two looks at the whole backup store, which take a call for each session with a backup."""

ADOPTION_GRACE = 60.0
"""s from the creation of a workspace's volume until a missing record counts as lost."""


class Sweeps:
    """The sweeps, each safe to run at any time. Times are seconds since the epoch.

    Sweeps that delete by age use counted time, which each of them ticks."""

    def __init__(
        self,
        core: Core,
        runtime: Runtime,
        lifecycle: Lifecycle,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._core = core
        self._store = core.store
        self._runtime = runtime
        self._lifecycle = lifecycle
        self._clock = clock
        self._ticks = ticks
        self._clock_guard = ClockGuard()
        self._time = CountedTime(core.redis)
        self._sampler = Sampler(core)
        self._stored = Direct(core.backup_store, core.backups, clock)
        self._stored_backups = StoredBackups(core)
        self._stored_points = StoredPoints(core, clock)
        self._archiving = Archiving(core, clock)
        self._adoption = ArchiveAdoption(core, runtime, clock)
        self._place = Place(core.redis, runtime)
        self._begun = clock()

    def idle(self) -> None:
        """Put idle sessions to sleep, and announce it a while before. Checks that are scheduled too far in the future
        were scheduled before the clock jumped back, and are due too."""
        now = self._clock()
        if not self._clock_guard.trusts(now, self._ticks()):
            return
        for record in [*self._store.due(keys.IDLE, now), *self._store.due_after(keys.IDLE, now + MAX_RECHECK)]:
            verdict = idle_verdict(record, self._core.policy, now)
            try:
                if verdict.due:
                    self._core.sessions.sleep(record.uuid, seen=record)
                    log.info("put to sleep: %s", verdict.why, extra={"uuid": record.uuid})
                    self._core.audit.note_own("sleep", record.uuid, record.user_id, verdict.why)
                    continue
                if verdict.warn:
                    self._announce(record, verdict, now)
                if verdict.ahead:
                    self._store.change(record.uuid, now, expect=seen_idle(record), **not_ahead(record, now))
            except (Superseded, IllegalState, SessionNotFound) as error:
                log.info("not put to sleep: %s", error, extra={"uuid": record.uuid})
            else:
                self._store.defer(keys.IDLE, record.uuid, verdict.next_check)

    def expired(self) -> None:
        """Archive the sleeping sessions that are unused for their `ttl`, and delete, with a backup, those that are for
        `ARCHIVE_RETENTION`, in counted time. Checks that are scheduled too far in the future are due too, as in
        `idle`."""
        counted = self._time.tick(self._clock())
        now = counted.now
        self._archiving.go_on(counted)
        far = self._store.due_after(keys.EXPIRY, now + MAX_EXPIRY_RECHECK)
        for record in [*self._store.due(keys.EXPIRY, now), *far]:
            verdict = expiry_verdict(record, counted, self._core.settings.archive_retention)
            try:
                if verdict.due:
                    self._core.sessions.delete(record.uuid, seen=record)
                    log.info("deleting: %s", verdict.why, extra={"uuid": record.uuid})
                    self._core.audit.note_own("delete", record.uuid, record.user_id, verdict.why)
                    continue
                if verdict.archive:
                    self._store.defer(keys.EXPIRY, record.uuid, self._archiving.take(record, now))
                    continue
                if verdict.ahead:
                    self._store.change(record.uuid, now, expect=seen_idle(record), **not_ahead(record, now))
            except (Superseded, IllegalState, SessionNotFound) as error:
                log.info("not deleted: %s", error, extra={"uuid": record.uuid})
            else:
                self._store.defer(keys.EXPIRY, record.uuid, verdict.next_check)

    def stale(self) -> None:
        """Send intents, backups, erasures, deliveries, disconnects and routes to ports again whose message or worker
        was lost. A task that still waits in its queue is not sent twice. Once a minute, also sample the service."""
        now = self._clock()
        later = now + self._core.settings.stale_after
        if self._store.first_sight(now):
            self._core.tasks.send(task_queue.RECONCILE)
            self._core.tasks.send(task_queue.SWEEP_INDEX)
        self._core.counters.look_at_queues(task_queue.QUEUES, now)
        waiting = lru_cache(maxsize=1)(self._core.tasks.waiting)
        for record in self._store.due(keys.INTENTS, now):
            if record.settled >= record.generation:
                self._store.defer(keys.INTENTS, record.uuid, 0.0)
            elif left := self._core.leases.left(keys.LEASE.format(uuid=record.uuid)):
                # A dead worker's lease ends by then; a living worker renews it.
                self._store.defer(keys.INTENTS, record.uuid, min(later, now + left))
            elif record.started_at:
                if not look_again(self._core, self._runtime, record, now):
                    self._check_start(record, now)
            elif waiting().has(record.task, record.uuid, record.generation):
                self._store.defer(keys.INTENTS, record.uuid, later)
            else:
                self._core.sessions.resend(record)
        for record in self._store.due(keys.BACKUP_REQUESTS, now):
            self._store.defer(keys.BACKUP_REQUESTS, record.uuid, later)
            if left := self._core.leases.left(keys.BACKUP_LEASE.format(uuid=record.uuid)):
                self._store.defer(keys.BACKUP_REQUESTS, record.uuid, min(later, now + left))
            elif not waiting().has(task_queue.BACKUP, record.uuid):
                self._core.tasks.send(task_queue.BACKUP, record.uuid, request_id=record.request_id)
        for uuid in self._core.erasures.due(now):
            self._core.erasures.defer(uuid, later)
            if not waiting().has(task_queue.ERASE, uuid):
                self._core.tasks.send(task_queue.ERASE, uuid)
        for record in self._store.due(keys.INBOX_PENDING, now):
            self._store.defer(keys.INBOX_PENDING, record.uuid, later)
            if not waiting().has(task_queue.DELIVER, record.uuid):
                self._remind(record)
        for record in self._store.due(keys.DISCONNECTS, now):
            self._core.revocations.sent(record.uuid, now)
            if not waiting().has(task_queue.DISCONNECT, record.uuid):
                self._core.tasks.send(task_queue.DISCONNECT, record.uuid, request_id=record.request_id)
        for record in self._store.due(keys.OPENINGS, now):
            self._store.defer(keys.OPENINGS, record.uuid, later)
            if not waiting().has(task_queue.LEAD_PORTS, record.uuid):
                self._core.tasks.send(task_queue.LEAD_PORTS, record.uuid, request_id=record.request_id)
        self._sampler.sample(now)

    def _check_start(self, record: Record, now: float) -> None:
        """A start has failed when its editor runs and does not answer for `START_TIMEOUT`, the observer watched all
        that time, and a direct look confirms it. How long a workspace may wait for its editor to begin is decided by
        the observer, which sees progress."""
        lost_at = record.started_at + self._core.settings.volume_lost_after
        if out_of_reach(record) and now >= lost_at:
            self._lifecycle.replace_volume(record)
            return
        patience = self._core.settings.start_timeout
        since = self._core.heartbeats.observed_since(now)
        judged_at = now + patience if since is None else max(record.started_at, since) + patience
        if judged_at >= now:
            looked_at = min(judged_at, now + patience, lost_at if lost_at > now else math.inf)
            self._store.defer(keys.INTENTS, record.uuid, looked_at + 0.001)
            return
        silent = silent_editor(patience)
        try:
            seen = self._runtime.observe(record.uuid)
        except RetryableError as error:
            log.info("the workspace cannot be observed: %s", error, extra={"uuid": record.uuid})
            self._store.defer(keys.INTENTS, record.uuid, now + self._core.settings.stale_after)
            return
        except PermanentError as error:
            self._lifecycle.fail(record, str(error), reason_code=error.code)
            return
        if seen is None:
            self._lifecycle.check_files(record.uuid)
        elif not seen.running or seen.generation != record.generation:
            why, code = (seen.failure, seen.code) if seen.failure else (silent, ReasonCode.EDITOR_SILENT)
            self._lifecycle.fail(record, why, reason_code=code)
        elif seen.ready:
            mark_active(self._core, record, seen, now)
        elif not seen.began:
            self._store.defer(keys.INTENTS, record.uuid, now + patience)
        elif seen.began + patience >= now:
            self._store.defer(keys.INTENTS, record.uuid, seen.began + patience + 0.001)
        else:
            self._lifecycle.fail(record, silent, reason_code=ReasonCode.EDITOR_SILENT)

    def reconcile(self) -> None:
        """Make the records agree with the existing workspaces: create a record for every workspace without one (Redis
        was lost), bring sessions back whose files are gone, and remove leftovers of the runtime."""
        workspaces = {seen.identity.uuid: seen for seen in self._runtime.observe_all()}
        known = {record.uuid for record in self._store.find(workspaces)}
        now = self._clock()
        for uuid in workspaces.keys() - known:
            if now - workspaces[uuid].created_at >= ADOPTION_GRACE:
                self._adopt(workspaces[uuid])
        if self._core.makes_restore_points:
            # Most are scheduled; not so those of a Redis that was lost.
            self._store.schedule_missing(keys.POINTS_DUE, known, now)
        self._correct_costs(workspaces, now)
        archived = self._store.archived()
        for record in self._store.find(archived & workspaces.keys()):
            if record.status is Status.SLEEPING and record.archived_at and record.settled >= record.generation:
                if record.files_of:
                    self._take_back(record, workspaces[record.uuid])
                else:
                    self._archiving.finish(record)
        expected = set(self._store.uuids([Status.SLEEPING, Status.ACTIVE])) - archived
        if self._place.is_same(sure=not expected or not expected.isdisjoint(workspaces)):
            for uuid in expected - workspaces.keys():
                self._lifecycle.check_files(uuid)
        for uuid, seen in workspaces.items():
            if seen.code in (FilesGone.code, FilesGoing.code):
                self._lifecycle.check_files(uuid)
        self._runtime.tidy()

    def index(self) -> None:
        """Finish interrupted deletions; and once a day, at the start of this process, and where Redis was lost, look at
        the whole store of backups, and bring archived sessions back. Then carry out the recovery that is asked for."""
        self._stored.finish()
        self._stored_points.finish()
        begun, looked = self._clock(), self._core.backups.looked_at()
        # A later time is of a clock that has jumped back since.
        recent = looked is not None and max(self._begun, begun - STORE_LOOK_EVERY) <= looked <= begun
        asked = self._core.recoveries.waiting()
        if recent and not asked:
            return
        with self._core.leases.hold(keys.STORE_LOOK_LEASE) as free:
            if not free:
                return
            if not recent:
                self._look(begun)
            if asked:
                self._recover(asked)

    def _look(self, begun: float) -> None:
        unadopted = self._unadopted()
        self._look_at_store(awaited=frozenset(unadopted.values()))
        self._adoption.look()
        # Else another look follows, once the reconcile sweep has made their records.
        if not unadopted:
            self._core.backups.note_look(begun)
        self._stored_points.look()

    def _recover(self, asked: Recovery) -> None:
        """Carry out a recovery; one that fails is repeated by the next look."""
        try:
            self._adoption.recover(asked)
        except (RestorePointsOff, PermanentError, RetryableError) as error:
            log.warning("the recovery is tried again: %s", error)
            self._core.recoveries.note_failed(str(error))

    def _look_at_store(self, awaited: frozenset[str]) -> None:
        """Remove what killed workers left, and add the stored backups that the index lacks. Those `awaited` by
        workspaces without a record are not added: without a record that names them they could be deleted."""
        store = self._core.backup_store
        store.sweep_parts(self._time.tick(self._clock()).ago(STALE_PARTS))
        names = store.names()
        self._stored_backups.index(name for name in names if name not in awaited)
        self._name_backups({session_of(name) for name in names})

    def _name_backups(self, uuids: Iterable[str]) -> None:
        """Name the last backup in the records of these sessions that name none: they were made again after Redis was
        lost."""
        for record in self._store.find(uuids):
            if record.backup or record.status in GONE or not (backup := self._core.backups.newest_of(record.uuid)):
                continue
            named: dict[str, Any] = {"backup": backup.name, "backup_lacks": lacking_of(backup)}
            with suppress(Superseded, SessionNotFound):  # a newer one is named, or the session goes
                expect = {"backup": "", "status": record.status}
                self._store.change(record.uuid, self._clock(), expect=expect, **named)

    def _unadopted(self) -> dict[str, str]:
        """The sessions of workspaces without a record, and what each is to be restored from."""
        sources = {seen.identity.uuid: seen.identity.restore_from for seen in self._runtime.observe_all()}
        known = {record.uuid for record in self._store.find(sources)}
        return {uuid: source for uuid, source in sources.items() if uuid not in known}

    def retention(self) -> None:
        """Delete backups older than `BACKUP_RETENTION`, conversations of deleted sessions older than
        `HISTORY_RETENTION`, audit entries older than `AUDIT_RETENTION`, and old tombstones."""
        counted = self._time.tick(self._clock())
        if retention := self._core.settings.backup_retention:
            for backup in self._core.backups.older_than(counted.ago(retention)):
                try:
                    self._stored.delete_old(backup.name, there=self._lost(backup.uuid))
                except BackupInUse:
                    continue
                except PermanentError as error:
                    log.warning("an expired backup was not deleted: %s", error)
                else:
                    why = f"older than BACKUP_RETENTION, {backup.name}"
                    self._core.audit.note_own("delete_backup", backup.uuid, backup.user_id, why)
        if retention := self._core.settings.history_retention:
            self._forget_conversations(counted.ago(retention))
        self._store.forget_tombstones(counted.now)
        if retention := self._core.settings.audit_retention:
            self._core.audit.delete_before(counted.ago(retention))

    def _lost(self, uuid: str) -> bool:
        """Whether a workspace exists whose session has no record, or only a tombstone: the record was lost with
        Redis."""
        lives = any(record.status is not Status.TERMINATED for record in self._store.find([uuid]))
        return not lives and self._runtime.observe(uuid) is not None

    def _forget_conversations(self, before: float) -> None:
        uuids = self._core.history_store.uuids()
        records = self._store.find(uuids)
        living = {record.uuid for record in records if record.status is not Status.TERMINATED}
        for uuid in set(uuids) - living:
            written = self._core.history_store.last_written(uuid)
            if written is None or written > before:
                continue
            try:
                if not self._lost(uuid):
                    self._core.history_store.delete(uuid)
            except PermanentError as error:
                log.warning("an expired conversation was not deleted: %s", error)

    def _announce(self, record: Record, verdict: IdleVerdict, now: float) -> None:
        """Announce, once for each planned sleep, that the session is about to sleep: as an event and in its editor."""
        self._store.change(
            record.uuid,
            now,
            expect=seen_idle(record),
            warned=verdict.sleeps_at,
            event=("idle_warning", {"sleeps_at": iso(verdict.sleeps_at), "why": verdict.why}),
        )
        self._core.tasks.send(task_queue.WARN, record.uuid, request_id=record.request_id)

    def _remind(self, record: Record) -> None:
        """Prompts, or an agent's call, have waited for too long: their task was lost, or something else stopped the
        workspace, which is woken for its prompts. A session that was put to sleep on demand is not woken."""
        if record.status is Status.SLEEPING and record.settled >= record.generation and record.waiting:
            try:
                self._core.sessions.wake(record.uuid, record.request_id)
                why = "prompts wait"
                self._core.audit.note_own("wake", record.uuid, record.user_id, why, repeatable=True)
            except (IllegalState, SessionNotFound) as error:
                log.info("not woken for waiting prompts: %s", error, extra={"uuid": record.uuid})
        elif record.status in UP:
            self._core.delivery.request(record.uuid, record.request_id)

    def _take_back(self, record: Record, seen: Observation) -> None:
        """The volume of a recovered session was only out of sight. If its processes run, the session is woken, which
        adopts them."""
        with suppress(Superseded, IllegalState, SessionNotFound):
            if take_back(self._core, record, seen, self._clock()) and seen.running:
                self._core.sessions.wake(record.uuid)

    def _adopt(self, seen: Observation) -> None:
        """Create the record of a workspace again. A running one is woken, which adopts its processes."""
        now = self._clock()
        identity = seen.identity
        unfinished = bool(identity.restore_from)
        up = seen.running or unfinished
        record = Record(
            **vars(identity),
            status=Status.WAKING if up else Status.SLEEPING,
            generation=seen.generation + 1,
            settled=0 if up else seen.generation + 1,
            task=task_queue.RESTORE if unfinished else task_queue.WAKE if up else "",
            provisioned=not unfinished,
            requested_at=now,
            last_activity=now,
            # It is unknown which access tokens were revoked, so all earlier ones are.
            access_epoch=int(now),
            # The agent's token is of this epoch, unless that is unknown.
            epoch=max(1, seen.epoch),
        )
        if self._store.create(record, quota=None, due=now + self._core.settings.stale_after if up else 0.0):
            log.warning("created the record of a workspace that had none", extra={"uuid": record.uuid})
            self._store.change(record.uuid, now, ledger=costs_of(self._core, seen, now))
            if up:
                self._core.sessions.resend(record)

    def _correct_costs(self, workspaces: Mapping[str, Observation], now: float) -> None:
        """Begin and end in the ledger what a killed worker, whose attempts were given up, has not noted. `workspaces`
        were observed before the records are read: what has begun since costs on."""
        for record in self._store.metered():
            seen = workspaces.get(record.uuid)
            at_rest = record.settled >= record.generation and record.compute_since < now
            if at_rest and (seen is None or not seen.running):
                self._correct(record, {"compute_since": record.compute_since}, Intervals(ran_until=now))
        for record in self._store.find(workspaces):
            if not record.disk_since and record.status not in GONE:
                made = 0.0 if record.provisioned else workspaces[record.uuid].created_at
                kept = Intervals(kept_from=made or now, mib=self._core.prices.volume_mib)
                self._correct(record, {"disk_since": 0.0}, kept)

    def _correct(self, record: Record, expect: Mapping[str, Any], intervals: Intervals) -> None:
        with suppress(Superseded, SessionNotFound):  # somebody else has noted it, or it is gone
            expect = {**expect, "generation": record.generation}
            self._store.change(record.uuid, self._clock(), expect=expect, ledger=intervals)
