"""Carrying out what is wanted of a session: bring its workspace up, put it down, back it up, tear it down.

Every step is idempotent and carries the generation of its intent, so that it may be repeated, be
killed anywhere, or run beside a newer one. Nothing waits for readiness: the watcher sees that.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from app.sessions import keys
from app.sessions.agents import Agent
from app.sessions.backup_files import backup_name
from app.sessions.backups import Backup
from app.sessions.core import Core
from app.sessions.errors import (
    BackupNotFound,
    FilesGoing,
    FilesGone,
    IllegalState,
    PermanentError,
    SessionError,
    SessionNotFound,
    Superseded,
)
from app.sessions.model import Record, Status
from workers.leaving import take_leave
from workers.runtime.base import Runtime

log = logging.getLogger(__name__)

EVENTS_KEPT_ASLEEP = 600.0
"""s: a sleeping session may cost 2 KB, and Redis gives any stream 4 KB (measured on 7.0)."""

DELETED = "The session was deleted before this was done."


class Lifecycle:
    """Acts on sessions through a runtime. Times are seconds since the epoch."""

    def __init__(self, core: Core, runtime: Runtime, clock: Callable[[], float] = time.time) -> None:
        self._core = core
        self._store = core.store
        self._runtime = runtime
        self._clock = clock

    def carry_out(self, uuid: str, generation: int) -> None:
        """Do what the session's intent `generation` asks for, unless a newer one exists or another worker is
        at it. Raises `RetryableError`; a `PermanentError` makes the session `failed`."""
        if self._pending(uuid, generation) is None:
            return
        with self._core.leases.hold(keys.LEASE.format(uuid=uuid)) as held:
            if not held:
                return
            try:
                record = self._pending(uuid, generation)
                if record is not None:
                    self._act(record)
            except (Superseded, IllegalState) as error:
                # Illegal: another worker at the same intent, one that lost its lease unnoticed, ended it otherwise.
                log.info("superseded: %s", error, extra={"uuid": uuid, "generation": generation})
            except FilesGone:
                self.lose(uuid, generation)
            except PermanentError as error:
                self.fail(uuid, generation, str(error))
        self._pass_on(uuid, generation)

    def back_up(self, uuid: str) -> None:
        """Carry out a requested backup. Failing for good, it is reported as an event and the request dropped."""
        try:
            with self._core.leases.hold(keys.BACKUP_LEASE.format(uuid=uuid)) as held:
                if held and self._store.backup_wanted(uuid):
                    self._back_up(uuid)
        finally:
            # However it went: a delete that came meanwhile has been waiting for it.
            self._pass_on(uuid)

    def drop_backup(self, uuid: str, reason: str) -> None:
        """Give up a requested backup and say why; the session is as it was."""
        self._core.fleet.count("backups_failed")
        self._core.events.append(uuid, "backup", {"status": "failed", "reason": reason})
        self._store.defer(keys.BACKUP_REQUESTS, uuid, 0.0)

    def lose(self, uuid: str, generation: int) -> None:
        """Make a session whose files are gone `failed`; the next wake brings back those of its newest backup."""
        newest = self._core.backups.newest_of(uuid)
        if newest is None:
            reason = "Its files are gone, and there is no backup of them. Wake it to start with none, or delete it."
        else:
            reason = f"Its files are gone. Wake it to get those of its newest backup, {newest.name}, or delete it."
        self.fail(uuid, generation, reason, provisioned=False, restore_from=newest.name if newest else "")

    def fail(self, uuid: str, generation: int, reason: str, **fields: Any) -> None:
        """Make the session `failed`, if that intent is still its newest."""
        try:
            self._store.change(
                uuid,
                self._clock(),
                to=Status.FAILED,
                expect={"generation": generation},
                settle=True,
                reason=reason,
                **fields,
            )
            self._core.fleet.count("sessions_failed")
        except (Superseded, IllegalState, SessionNotFound) as error:
            log.info("not marked failed: %s", error, extra={"uuid": uuid})

    def _pending(self, uuid: str, generation: int) -> Record | None:
        """The record, if this intent is its newest and not yet carried out."""
        try:
            record = self._store.get(uuid)
        except SessionNotFound:
            return None
        return record if record.generation == generation > record.settled else None

    def _act(self, record: Record) -> None:
        match record.status:
            case Status.CREATED | Status.WAKING:
                self._bring_up(record)
            case Status.SLEEPING:
                self._put_down(record)
            case Status.TERMINATING:
                self._tear_down(record)

    def _back_up(self, uuid: str) -> None:
        try:
            backup = self._write_backup(self._store.get(uuid))
        except SessionNotFound:
            log.info("no such session any more", extra={"uuid": uuid})
        except PermanentError as error:
            self.drop_backup(uuid, str(error))
            return
        else:
            self._store.change(
                uuid, self._clock(), backup=backup.name, event=("backup", {"status": "done", "name": backup.name})
            )
        self._store.defer(keys.BACKUP_REQUESTS, uuid, 0.0)

    def _bring_up(self, record: Record) -> None:
        # The first time it was taken, should this be a repeated task.
        enqueued = record.phases.get("enqueued", self._since(record))
        if record.restore_from:
            self._runtime.restore(record.identity, record.generation)
            self._store.change(
                record.uuid,
                self._clock(),
                expect={"restore_from": record.restore_from},
                restore_from="",
                provisioned=True,
                event=("phase", {"phase": "restored", "ms": self._since(record)}),
            )
        elif not record.provisioned:
            self._runtime.provision(record.identity, record.generation, starting=True)
        # Noted before the start, so that a session whose processes run is always known to have a volume.
        self._update(
            record,
            provisioned=True,
            phases={"enqueued": enqueued},
            event=("phase", {"phase": "enqueued", "ms": enqueued}),
        )
        self._core.inbox.release(record.uuid, self._clock())
        self._runtime.start(record.uuid, record.generation)
        # From here its time to answer counts, and no worker needs to start it again.
        self._update(record, started_at=self._clock())

    def _put_down(self, record: Record) -> None:
        agent = self._core.inbox.agent(record.uuid)
        if not self._core.inbox.hold(record.uuid, record.generation, self._clock()):
            raise Superseded(f"Session {record.uuid} is wanted again.")
        if agent is not None:
            self._take_leave(record, agent, "sleep")
        self._runtime.stop(record.uuid, record.generation)
        self._update(
            record,
            settle=True,
            replicas=0,
            pod_name="",
            events_ttl=EVENTS_KEPT_ASLEEP,
            event=("state", {"status": Status.SLEEPING, "replicas": 0}),
        )
        self._core.fleet.count("sleeps")

    def _tear_down(self, record: Record) -> None:
        """Stop, back up, verify, and only then delete. A running backup goes first, and its end resumes this.
        Files that last only while the workspace runs are backed up while it does."""
        with self._core.leases.hold(keys.BACKUP_LEASE.format(uuid=record.uuid)) as free:
            if not free:
                log.info("teardown waits for a backup", extra={"uuid": record.uuid})
                return
            self._take_last_leave(record)
            try:
                self._runtime.stop(record.uuid, record.generation)
                self._update(record, replicas=0, pod_name="")
            except FilesGoing as error:
                log.warning("not stopped before its backup: %s", error, extra={"uuid": record.uuid})
            if record.delete_backup:
                self._update(record, backup=self._last_backup(record), backup_generation=record.generation)
            self._update(record, event=("phase", {"phase": "deleting", "ms": self._since(record)}))
            self._runtime.remove(record.uuid, record.generation)
            self._store.defer(keys.BACKUP_REQUESTS, record.uuid, 0.0)
            self._keep_conversation(record)
            self._update(record, to=Status.TERMINATED, settle=True, replicas=0, pod_name="")
            self._core.fleet.count("teardowns")

    def _take_last_leave(self, record: Record) -> None:
        agent = self._core.inbox.agent(record.uuid)
        if agent is not None:
            self._core.inbox.agent_gone(record.uuid)
            self._take_leave(record, agent, "delete")

    def _take_leave(self, record: Record, agent: Agent, reason: str) -> None:
        """Take leave of its agent, and tell what that puts at risk, before anything of it is stopped."""
        risk = take_leave(self._core, agent, reason)
        if risk is not None:
            self._update(record, risk=risk, event=("risk", risk) if risk else None)

    def _keep_conversation(self, record: Record) -> None:
        """End the prompts that were left, and let the conversation's retention count from now."""
        self._core.inbox.close(record.uuid, DELETED, self._clock())
        try:
            self._core.archive.renew(record.uuid)
        except SessionError as error:
            log.warning("conversation not renewed: %s", error, extra={"uuid": record.uuid})

    def _last_backup(self, record: Record) -> str:
        """The name of a verified backup of all the session's files, "" when it never had any; of one whose files
        are gone, that of the newest there is.

        One made for this very teardown, by a worker that was killed after it, is good. Files still
        to be restored are those of the backup they come from.
        """
        if record.backup_generation == record.generation:
            return record.backup
        if record.restore_from:
            return record.restore_from
        if not record.provisioned:
            return ""
        try:
            return self._write_backup(record).name
        except FilesGone:
            newest = self._core.backups.newest_of(record.uuid)
            return newest.name if newest else ""

    def _write_backup(self, record: Record) -> Backup:
        name = self._free_name(record.uuid)
        summary = self._runtime.backup(record.uuid, name)
        backup = Backup(
            name=name,
            uuid=record.uuid,
            user_id=record.user_id,
            created_at=summary.created_at,
            size=summary.size,
            files=summary.files,
            content_bytes=summary.content_bytes,
            sha256=summary.sha256,
            verified=True,
            origin=record.identity,
            changed=summary.changed,
        )
        self._core.backups.add(backup)
        self._core.fleet.count("backups")
        return backup

    def _free_name(self, uuid: str) -> str:
        """A backup name not in use: names count whole seconds, and two backups may fall into one."""
        when = self._clock()
        while True:
            name = backup_name(uuid, when)
            try:
                self._core.backups.get(name)
            except BackupNotFound:
                return name
            when += 1

    def _update(self, record: Record, **change: object) -> None:
        """Change the record as part of its intent; raises `Superseded` when it isn't the newest any more."""
        self._store.change(record.uuid, self._clock(), expect={"generation": record.generation}, **change)  # type: ignore[arg-type]

    def _since(self, record: Record) -> int:
        """Milliseconds since the request."""
        return max(0, round((self._clock() - record.requested_at) * 1000))

    def _pass_on(self, uuid: str, generation: int | None = None) -> None:
        """Enqueue again what may have found a lease of ours taken and gone: the task of an intent newer than
        `generation`, or a teardown that gave way to a backup. Asked when a lease was let go, on either side: of two
        that end at once the later sees it."""
        try:
            record = self._store.get(uuid)
        except SessionNotFound:
            return
        if record.settled >= record.generation:
            return
        newer = generation is not None and record.generation > generation
        gave_way = record.status is Status.TERMINATING
        if newer or (gave_way and not self._core.leases.held(keys.BACKUP_LEASE.format(uuid=uuid))):
            self._core.sessions.resend(record)
