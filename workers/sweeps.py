"""What beat asks for again and again: look at what is due, and set it going.

A sweep reads one range of a sorted set and decides by the pure functions of app/sessions/verdict.py. Two
sweeps at once are harmless: each change is refused when the session is no longer as it was seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache

from app.sessions import keys, queue
from app.sessions.backups import Backup
from app.sessions.clock import CountedTime
from app.sessions.core import Core
from app.sessions.errors import (
    ArchiveError,
    BackupInUse,
    BackupNotFound,
    BackupRetired,
    IllegalState,
    PermanentError,
    RetryableError,
    SessionError,
    SessionNotFound,
    Superseded,
)
from app.sessions.model import UP, Record, Status, iso
from app.sessions.service import seen_idle
from app.sessions.stored import Direct
from app.sessions.verdict import (
    FURTHEST_EXPIRY_LOOK,
    FURTHEST_LOOK,
    IdleVerdict,
    expiry_verdict,
    idle_verdict,
    not_ahead,
)
from workers.arrival import arrived, catch_up
from workers.lifecycle import Lifecycle
from workers.runtime.base import Observation, Runtime
from workers.steady import Steady

log = logging.getLogger(__name__)

STALE_PARTS = 86_400.0
"""s: a temporary backup file this old belongs to no living worker; a backup may take an hour."""

ADOPTION_GRACE = 60.0
"""s from the making of a workspace's volume until it may count as one that has lost its record."""


class Sweeps:
    """The sweeps, each safe to run at any time. Times are seconds since the epoch.

    What a sweep deletes for its age it asks for its counted age, by a tick of its own."""

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
        self._steady = Steady()
        self._time = CountedTime.of(core.redis, core.settings)
        self._stored = Direct(core.files, core.backups, clock)

    def idle(self) -> None:
        """Put to sleep what is idle, and announce it a while before. A look that is further away than any would be
        was agreed on before the clock jumped back."""
        now = self._clock()
        if not self._steady.trusts(now, self._ticks()):
            return
        for record in [*self._store.due(keys.IDLE, now), *self._store.due_after(keys.IDLE, now + FURTHEST_LOOK)]:
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
                log.info("left awake: %s", error, extra={"uuid": record.uuid})
            else:
                self._store.defer(keys.IDLE, record.uuid, verdict.next_check)

    def expired(self) -> None:
        """Back up and tear down what has outlived its time to live, by the time that counts. A look that is further
        away than any would be was agreed on before the clock jumped back."""
        counted = self._time.tick(self._clock())
        now = counted.now
        far = self._store.due_after(keys.EXPIRY, now + FURTHEST_EXPIRY_LOOK)
        for record in [*self._store.due(keys.EXPIRY, now), *far]:
            verdict = expiry_verdict(record, counted)
            try:
                if verdict.due:
                    self._core.sessions.delete(record.uuid, seen=record)
                    log.info("deleted: %s", verdict.why, extra={"uuid": record.uuid})
                    self._core.audit.note_own("delete", record.uuid, record.user_id, verdict.why)
                    continue
                if verdict.ahead:
                    self._store.change(record.uuid, now, expect=seen_idle(record), **not_ahead(record, now))
            except (Superseded, IllegalState, SessionNotFound) as error:
                log.info("not deleted: %s", error, extra={"uuid": record.uuid})
            else:
                self._store.defer(keys.EXPIRY, record.uuid, verdict.next_check)

    def stale(self) -> None:
        """Enqueue again what was asked for and not done: its message, or its worker, was lost. What still waits in a
        queue gets no second message, however long that takes."""
        now = self._clock()
        later = now + self._core.settings.stale_after
        if self._store.first_sight(now):
            self._core.tasks.send(queue.RECONCILE)
            self._core.tasks.send(queue.SWEEP_INDEX)
        waiting = lru_cache(maxsize=1)(self._core.tasks.waiting)
        for record in self._store.due(keys.INTENTS, now):
            if record.settled >= record.generation:
                self._store.defer(keys.INTENTS, record.uuid, 0.0)
            elif left := self._core.leases.left(keys.LEASE.format(uuid=record.uuid)):
                # That long if its worker is dead; one that lives goes on renewing it.
                self._store.defer(keys.INTENTS, record.uuid, min(later, now + left))
            elif record.started_at:
                if not catch_up(self._core, self._runtime, record, now):
                    self._judge_start(record, now)
            elif waiting().has(record.task, record.uuid, record.generation):
                self._store.defer(keys.INTENTS, record.uuid, later)
            else:
                self._core.sessions.resend(record)
        for record in self._store.due(keys.BACKUP_REQUESTS, now):
            self._store.defer(keys.BACKUP_REQUESTS, record.uuid, later)
            if left := self._core.leases.left(keys.BACKUP_LEASE.format(uuid=record.uuid)):
                self._store.defer(keys.BACKUP_REQUESTS, record.uuid, min(later, now + left))
            elif not waiting().has(queue.BACKUP, record.uuid):
                self._core.tasks.send(queue.BACKUP, record.uuid, request_id=record.request_id)
        for record in self._store.due(keys.INBOX_PENDING, now):
            self._store.defer(keys.INBOX_PENDING, record.uuid, later)
            if not waiting().has(queue.DELIVER, record.uuid):
                self._remind(record)
        for record in self._store.due(keys.LOCKOUTS, now):
            self._core.lockouts.sent(record.uuid, now)
            if not waiting().has(queue.LOCK_OUT, record.uuid):
                self._core.tasks.send(queue.LOCK_OUT, record.uuid, request_id=record.request_id)

    def _judge_start(self, record: Record, now: float) -> None:
        """An editor that runs and does not answer for `START_TIMEOUT` has failed, if the watcher looked all that time
        and another look shows the same. How long a workspace may wait for its editor to begin is the watcher's to say,
        who sees what goes on meanwhile."""
        patience = self._core.settings.start_timeout
        since = self._core.fleet.watched_since(now)
        judged_at = now + patience if since is None else max(record.started_at, since) + patience
        if judged_at >= now:
            self._store.defer(keys.INTENTS, record.uuid, min(judged_at, now + patience) + 0.001)
            return
        silent = f"The editor did not answer for {patience:.0f} s."
        try:
            seen = self._runtime.observe(record.uuid)
        except RetryableError as error:
            log.info("not seen whether it answers: %s", error, extra={"uuid": record.uuid})
            self._store.defer(keys.INTENTS, record.uuid, now + self._core.settings.stale_after)
            return
        except PermanentError as error:
            self._lifecycle.fail(record, str(error), reason_code=error.code)
            return
        if seen is None or not seen.running or seen.generation != record.generation:
            self._lifecycle.fail(record, (seen and seen.failure) or silent)
        elif seen.ready:
            arrived(self._core, record, seen, now)
        elif not seen.began:
            self._store.defer(keys.INTENTS, record.uuid, now + patience)
        elif seen.began + patience >= now:
            self._store.defer(keys.INTENTS, record.uuid, seen.began + patience + 0.001)
        else:
            self._lifecycle.fail(record, silent)

    def reconcile(self) -> None:
        """Make the records agree with the workspaces that are there: give a record to every
        workspace without one (Redis was lost), and mark sessions `failed` whose files are gone. What nobody
        needs any more beside the workspaces goes."""
        workspaces = {seen.identity.uuid: seen for seen in self._runtime.observe_all()}
        known = {record.uuid for record in self._store.find(workspaces)}
        now = self._clock()
        for uuid in workspaces.keys() - known:
            if now - workspaces[uuid].created_at >= ADOPTION_GRACE:
                self._adopt(workspaces[uuid])
        if workspaces:
            for uuid in set(self._store.uuids([Status.SLEEPING, Status.ACTIVE])) - workspaces.keys():
                self._report_missing(uuid)
        self._runtime.tidy()

    def index(self) -> None:
        """Put stored backups into the index that it doesn't know, and finish deletions that were broken off. One that
        was deleted meanwhile may have been read before, so it is looked for once more."""
        self._stored.finish()
        awaited: frozenset[str] | None = None
        for name in self._core.backups.unknown(self._core.files.names()):
            try:
                backup = Backup.from_sidecar(self._core.files.sidecar(name))
                awaited = self._awaited() if awaited is None else awaited
                if name not in awaited:
                    self._core.backups.add(backup)
            except (ArchiveError, BackupNotFound, BackupRetired) as error:
                log.warning("backup not indexed: %s", error)
                continue
            if not self._core.files.exists(name):
                self._core.backups.delete(name)

    def _awaited(self) -> frozenset[str]:
        """The backups that workspaces without a record are to be restored from: in the index, where no record names
        them yet, they could be deleted."""
        waiting = {seen.identity.uuid: seen.identity.restore_from for seen in self._runtime.observe_all()}
        known = {record.uuid for record in self._store.find(waiting)}
        return frozenset(waiting[uuid] for uuid in waiting.keys() - known)

    def retention(self) -> None:
        """Delete backups older than `BACKUP_RETENTION`, conversations older than `HISTORY_RETENTION` of sessions
        that are gone, entries of the audit older than `AUDIT_RETENTION`, leftovers of killed workers, and old
        tombstones."""
        counted = self._time.tick(self._clock())
        if retention := self._core.settings.backup_retention:
            for backup in self._core.backups.older_than(counted.ago(retention)):
                try:
                    self._stored.delete_old(backup.name, there=self._lost(backup.uuid))
                except BackupInUse:
                    continue
                except PermanentError as error:
                    log.warning("old backup not deleted: %s", error)
                else:
                    why = f"older than BACKUP_RETENTION, {backup.name}"
                    self._core.audit.note_own("delete_backup", backup.uuid, backup.user_id, why)
        self._core.files.sweep_parts(counted.ago(STALE_PARTS))
        if retention := self._core.settings.history_retention:
            self._forget_conversations(counted.ago(retention))
        self._store.forget_tombstones(counted.now)
        if retention := self._core.settings.audit_retention:
            self._core.audit.forget(counted.ago(retention))

    def _lost(self, uuid: str) -> bool:
        """Whether no record says that a session lives, but its workspace is there: its record was lost with Redis."""
        lives = any(record.status is not Status.TERMINATED for record in self._store.find([uuid]))
        return not lives and self._runtime.observe(uuid) is not None

    def _forget_conversations(self, before: float) -> None:
        uuids = self._core.archive.uuids()
        records = self._store.find(uuids)
        living = {record.uuid for record in records if record.status is not Status.TERMINATED}
        for uuid in set(uuids) - living:
            written = self._core.archive.last_written(uuid)
            if written is None or written > before:
                continue
            try:
                if not self._lost(uuid):
                    self._core.archive.delete(uuid)
            except PermanentError as error:
                log.warning("old conversation not deleted: %s", error)

    def _announce(self, record: Record, verdict: IdleVerdict, now: float) -> None:
        """Tell who listens that the session is about to sleep, once for each such moment; also in its editor."""
        self._store.change(
            record.uuid,
            now,
            expect=seen_idle(record),
            warned=verdict.sleeps_at,
            event=("idle_warning", {"sleeps_at": iso(verdict.sleeps_at), "why": verdict.why}),
        )
        self._core.tasks.send(queue.WARN, record.uuid, request_id=record.request_id)

    def _remind(self, record: Record) -> None:
        """Prompts wait for longer than they should, or an agent to be called back: their task was lost, or someone
        else stopped the workspace, which a prompt outweighs. Those of a session that was put to sleep on demand are not
        among them."""
        if record.status is Status.SLEEPING and record.settled >= record.generation and record.waiting:
            try:
                self._core.sessions.wake(record.uuid, record.request_id)
                why = "prompts wait"
                self._core.audit.note_own("wake", record.uuid, record.user_id, why, repeatable=True)
            except (IllegalState, SessionNotFound) as error:
                log.info("not woken for its prompts: %s", error, extra={"uuid": record.uuid})
        elif record.status in UP:
            self._core.tasks.send(queue.DELIVER, record.uuid, request_id=record.request_id)

    def _adopt(self, seen: Observation) -> None:
        """Give a workspace its record back. One that runs is woken, which adopts its processes."""
        now = self._clock()
        identity = seen.identity
        unfinished = bool(identity.restore_from)
        up = seen.running or unfinished
        record = Record(
            **vars(identity),
            status=Status.WAKING if up else Status.SLEEPING,
            generation=seen.generation + 1,
            settled=0 if up else seen.generation + 1,
            task=queue.RESTORE if unfinished else queue.WAKE if up else "",
            provisioned=not unfinished,
            requested_at=now,
            last_activity=now,
            # Nobody knows which passes were taken back: none of before is good.
            door=int(now),
        )
        if self._store.create(record, quota=None, due=now + self._core.settings.stale_after if up else 0.0):
            log.warning("workspace without a record adopted", extra={"uuid": record.uuid})
            if up:
                self._core.sessions.resend(record)

    def _report_missing(self, uuid: str) -> None:
        try:
            record = self._store.get(uuid)
            if self._runtime.observe(uuid) is None and record.provisioned:
                self._lifecycle.lose(record)
        except SessionError as error:
            log.info("not reported missing: %s", error, extra={"uuid": uuid})
