"""The steps for each intent of a session: start its workspace, stop it, delete it, back it up.

**A step that may be superseded can be interrupted at any line, and its successor leaves what the newer intent needs.**
So each step begins from an unknown state and completes what another may have left half done: a start finishes the
volume and the restore, resumes an agent that was shut down, and releases the prompts that were held; a stop does not
begin before the files are in place; a deletion stops, backs up and removes, whatever of it was done before. Long work
checks now and then whether it is still wanted (`check`). Every step may be repeated, also by two attempts at once. No
step waits for readiness: the observer sees that (workers/lifecycle/mark_active.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from app.core.backups.index import Backup
from app.core.backups.store import backup_name
from app.core.composition import Core
from app.core.errors import (
    FilesGoing,
    FilesGone,
    PermanentError,
    PointsBroken,
    RetryableError,
    SessionError,
    Superseded,
)
from app.core.redis import keys, task_queue
from app.core.restore_points.names import parse, reference
from app.core.sessions.change import Intervals
from app.core.sessions.model import GONE, Record, Status, iso
from app.core.signal_kinds import SIGNALS
from workers.agents.shutdown import Left, shut_down
from workers.lifecycle.archive_adoption import take_back
from workers.lifecycle.archiving import Archive, safe_point
from workers.lifecycle.ended import done
from workers.lifecycle.lost_files import newest_backup_at, newest_copy, older_copy
from workers.lifecycle.mark_active import look_again
from workers.lifecycle.notify import notify
from workers.lifecycle.point_making import EVENTS_KEPT_ASLEEP
from workers.lifecycle.rolling_back import NOT_READABLE, RollingBack
from workers.lifecycle.stored_backups import StoredBackups
from workers.lifecycle.stored_points import StoredPoints
from workers.lifecycle.to_restore import to_restore
from workers.lifecycle.wanted import Ends, forced, gone, newer, while_wanted
from workers.runtime.base import Check, RestoredPoint, Runtime

log = logging.getLogger(__name__)

UNREADABLE_SHOWN = 10
"""Paths of unreadable files in the session's status; the sidecar of the backup has up to a hundred."""

FORGOTTEN: Mapping[str, Any] = {
    "left_fingerprint": "",
    "files_of": 0.0,
    "pod_name": "",
    "point_error": "",
    "request_id": "",
    "traceparent": "",
    "started_at": 0.0,
    "ready_seen": 0,
    "awake_since": 0.0,
    "disk_used_mib": 0,
    "services": (),
    "point_asked": 0,
    "warned": 0.0,
    "reason": "",
    "reason_code": "",
}
FORGOTTEN_SIGNALS = frozenset(name for name, kind in SIGNALS.items() if not kind.kept_archived)
"""What an archived session's record does without: it costs less than 1 KB of Redis. `last_activity` stays."""

DELETED = "The session was deleted before this prompt ran."


class Steps:
    """The steps, through a runtime. Each raises `Superseded` when a newer intent exists or another worker has the
    lease."""

    def __init__(self, core: Core, runtime: Runtime, clock: Callable[[], float]) -> None:
        self._core = core
        self._store = core.store
        self._inbox = core.inbox
        self._runtime = runtime
        self._clock = clock
        self._rolling_back = RollingBack(core, runtime, clock, self._update, self._stop)
        self._archived = Archive(core)

    def act(self, record: Record) -> None:
        """Carry out the record's intent."""
        match record.status:
            case Status.CREATED | Status.WAKING:
                self._start(record)
            case Status.SLEEPING if record.task == task_queue.ARCHIVE:
                self._archive(record)
            case Status.SLEEPING:
                self._sleep(record)
            case Status.TERMINATING if record.task == task_queue.LEAVE:
                self._begin_deletion(record)
            case Status.TERMINATING:
                self._tear_down(record)

    def back_up(self, record: Record) -> None:
        """Back up the files as they are; a deletion without a backup cancels it."""
        if record.status in GONE and not record.delete_backup:
            return
        backup = self._write_backup(record, while_wanted(self._store, record, forced), partial=True)
        lacking = lacking_of(backup)
        told = ("backup", {"status": "done", "name": backup.name, **lacking})
        self._store.change(
            record.uuid,
            self._clock(),
            backup=backup.name,
            backup_lacks=lacking,
            backup_ended=record.backup_asked,
            backup_error="",
            event=told,
        )
        # Else a lost volume would come back from the backup, which is newer than any restore point, and without HOME.
        self._core.sessions.ask_for_point(record.uuid, "api", record.request_id)

    def _start(self, record: Record) -> None:
        # When a worker first took the task; this may be a repetition.
        enqueued = record.phases.get("enqueued", self._since(record))
        if record.stopping and not _lost(record):
            # Do not wait here for the old processes to end: that would occupy a worker.
            self._runtime.stop(record.uuid, record.generation, patience=0.0)
            self._inbox.agent_gone(record.uuid)
            self._note_stopped(record, ended=True)
        if not (ready := self._bring_files(record, starting=True)):
            return
        record = ready
        # Noted before the start: a session whose processes run always has `provisioned` set, and costs.
        runs_on = record.compute_since and not record.stopping
        noted = self._update(
            record,
            provisioned=True,
            ledger=self._kept(runs_from=0.0 if runs_on else self._clock()),
            phases={"enqueued": enqueued},
            event=("phase", {"phase": "enqueued", "ms": enqueued}),
        )
        self._inbox.release(record.uuid, self._clock())
        ran = self._runtime.start(record.uuid, record.generation, noted.epoch)
        if self._store.get(record.uuid).opened_ports:
            # What led there has gone with the workspace, as into the archive.
            self._core.openings.lead(record.uuid, record.request_id)
        # The attempt is complete: from here the editor's time to answer counts.
        started = self._update(record, started_at=self._clock(), tries=0)
        look_again(self._core, self._runtime, started, self._clock())
        if ran:
            # An interrupted stop may have shut its agent down, and then the agent does not call for prompts.
            self._core.delivery.request(record.uuid, record.request_id)

    def _sleep(self, record: Record) -> None:
        phases = {"enqueued": self._since(record)}
        if record.archived_at and not record.rollback_to and self._runtime.observe(record.uuid) is None:
            # Its wake came to nothing, and there is nothing to stop.
            self._inbox.hold(record.uuid, record.generation, self._clock())
            self._update(record, settle=True, restoring={}, events_ttl=EVENTS_KEPT_ASLEEP)
            return
        if not (ready := self._bring_files(record, starting=False)):
            return
        record = ready
        if not record.provisioned:
            self._update(record, provisioned=True, ledger=self._kept())
        if not self._inbox.hold(record.uuid, record.generation, self._clock()):
            raise Superseded(f"Session {record.uuid} was told to sleep, and has got a newer intent since.")
        left = self._shut_down_agent(record, "sleep")
        unchanged = _unchanged(record, left)
        phases["agent_shut_down"] = self._since(record)
        stopped = self._stop(record)
        phases["stopped"] = self._since(record)
        self._inbox.agent_gone(record.uuid)
        # KEDA may start it next, without a worker.
        self._runtime.renew(record.uuid, stopped.epoch)
        self._update(
            record,
            settle=True,
            replicas=0,
            pod_name="",
            events_ttl=EVENTS_KEPT_ASLEEP,
            event=("phase", {"phase": "stopped", "ms": phases["stopped"]}),
            left_fingerprint=left.fingerprint,
            **({"point_at": self._clock()} if unchanged else {}),
        )
        notify(self._core, done("sleep", record, self._clock(), phases=phases))
        if not unchanged:
            self._core.sessions.ask_for_point(record.uuid, "sleep", record.request_id)

    def _archive(self, record: Record) -> None:
        """Leave the files to a restore point that was read back, and remove the workspace. The record says so before
        the workspace goes: what comes in between restores the same files, whether they are there or not."""
        with self._core.leases.hold(keys.BACKUP_LEASE.format(uuid=record.uuid)) as free:
            if not free:
                self._update(record, tries=0)
                return
            uuid, now, phases = record.uuid, self._clock(), {"enqueued": self._since(record)}
            point = safe_point(self._core, record)
            seen = self._runtime.observe(uuid)
            if seen is None and not record.archived_at:
                raise FilesGone(uuid)
            if point is None or (seen is not None and seen.running):
                log.info("not archived: it changed since that was asked for", extra={"uuid": uuid})
                self._update(record, settle=True)
                return
            self._archived.mark(record, point, now)
            if not record.archived_at:
                self._update(
                    record,
                    provisioned=False,
                    restore_from=reference(uuid, point.id),
                    archived_at=now,
                    clear_phases=True,
                    forget_signals=FORGOTTEN_SIGNALS,
                    **FORGOTTEN,
                )
            phases["marked"] = self._since(record)
            self._runtime.remove(uuid, record.generation)
            phases["removed"] = self._since(record)
            self._core.restore_points.keep_only(uuid, point.id)
            for each in (keys.POINTS_DUE, keys.ARCHIVING):
                self._store.defer(each, uuid, 0.0)
            self._update(
                record,
                settle=True,
                events_ttl=EVENTS_KEPT_ASLEEP,
                ledger=Intervals(kept_until=self._clock()),
                event=("phase", {"phase": "archived", "ms": phases["removed"]}),
            )
            notify(self._core, done("archive", record, self._clock(), phases=phases))

    def _begin_deletion(self, record: Record) -> None:
        """The first part of a deletion, on a queue of its own: its waits, for the agent and for processes to end, must
        not delay backups."""
        self._inbox.agent_leaves(record.uuid)
        self._shut_down_agent(record, "delete")
        self._stop_unless_files_go(record)
        self._inbox.agent_gone(record.uuid)
        self._hand_on(record, task_queue.TEARDOWN)

    def _tear_down(self, record: Record) -> None:
        """Stop, back up, verify, and only then delete. Waits for a running backup, whose end resumes this. If stopping
        would delete the files, they are backed up while the workspace runs."""
        if self._inbox.has_agent(record.uuid):
            self._hand_on(record, task_queue.LEAVE)
            return
        with self._core.leases.hold(keys.BACKUP_LEASE.format(uuid=record.uuid)) as free:
            if not free:
                log.info("the teardown waits for a backup", extra={"uuid": record.uuid})
                self._update(record, tries=0)
                return
            phases = {"enqueued": self._since(record)}
            self._stop_unless_files_go(record)
            phases["stopped"] = self._since(record)
            if record.delete_backup:
                self._update(record, backup=self._last_backup(record), backup_generation=record.generation)
                phases["backed_up"] = self._since(record)
            self._update(record, event=("phase", {"phase": "deleting", "ms": self._since(record)}))
            self._runtime.remove(record.uuid, record.generation, force=not record.delete_backup)
            phases["removed"] = self._since(record)
            self._store.defer(keys.BACKUP_REQUESTS, record.uuid, 0.0)
            self._delete_points(record)
            self._keep_conversation(record)
            now = self._clock()
            ended = Intervals(ran_until=now, kept_until=now, points_until=now)
            self._update(
                record, to=Status.TERMINATED, settle=True, replicas=0, pod_name="", archived_at=0.0, ledger=ended
            )
            if record.delete_erase:
                self._core.tasks.send(task_queue.ERASE, record.uuid, request_id=record.request_id)
            notify(self._core, done("delete", record, self._clock(), phases=phases))

    def _stop_unless_files_go(self, record: Record) -> None:
        try:
            self._stop(record)
            self._update(record, replicas=0, pod_name="")
        except FilesGoing as error:
            log.warning("backing up without stopping first: %s", error, extra={"uuid": record.uuid})

    def _stop(self, record: Record) -> Record:
        """Stop the processes and begin a new epoch, which ends their token; returns the record as it is then. Raises
        `StillEnding` when that takes longer; the next attempt, of any intent, continues the stop before it starts
        anything."""
        # Also the last check whether the stop is still wanted.
        self._update(record, stopping=True)
        try:
            self._runtime.stop(record.uuid, record.generation)
        except FilesGoing:
            self._note_stopped(record, ended=False)
            raise
        return self._note_stopped(record, ended=True)

    def _note_stopped(self, record: Record, *, ended: bool) -> Record:
        """Note that the stop is over and, with `ended`, that nothing runs, which begins a new epoch. Done even if a
        newer intent exists, which then need not check itself."""
        now, expect = self._clock(), {"lease": record.lease}
        ledger = Intervals(ran_until=now) if ended else None
        return self._store.change(
            record.uuid, now, expect=expect, stopping=False, next_epoch=ended, ledger=ledger
        ).record

    def _kept(self, runs_from: float = 0.0) -> Intervals:
        """The volume exists, and with `runs_from` the processes run."""
        return Intervals(kept_from=self._clock(), mib=self._core.prices.volume_mib, runs_from=runs_from)

    def _hand_on(self, record: Record, task: str) -> None:
        """Let another task continue this intent as soon as the lease is released."""
        self._update(record, then=task, tries=0)

    def _bring_files(self, record: Record, *, starting: bool, ends: Ends = gone) -> Record | None:
        """Make sure that the session has its volume, with the files of the backup or restore point it is to start
        from or is rolled back to; returns the record as it is then, None when this waits for a backup. A newer intent
        needs these as well, unless it is a deletion."""
        if record.rollback_to and ends is gone:
            prepared = self._rolling_back.prepare(record)
            if prepared is None:
                return None
            record = prepared
        if record.restore_from:
            return self._restore(record, ends)
        if not record.provisioned:
            self._runtime.provision(record.identity, record.generation, starting=starting)
        return record

    def _restore(self, record: Record, ends: Ends) -> Record:
        """Restore the files, unless the volume of a recovered session is there after all. A rollback to what can't be
        read is called off."""
        if (own := self._own_volume(record)) is not None:
            return own
        if _lost(record):
            self._discard(record)
        check = while_wanted(self._store, record, ends)
        self._note_restoring(record)
        try:
            since = newest_backup_at(self._core, record)
            restored = self._runtime.restore(
                record.identity, record.generation, newer_than=since, going_back=_goes_back(record), check=check
            )
        except NOT_READABLE as error:
            if not record.rollback_to:
                raise
            if record.provisioned:
                # The volume noted a restore that does not come.
                self._runtime.provision(replace(record.identity, restore_from=""), record.generation)
            after = self._rolling_back.call_off(record, str(error))
            if after.provisioned:
                return after
            if _lost(record):
                raise
            return self._restore(after, ends)
        return self._note_restored(record, restored)

    def _note_restoring(self, record: Record) -> None:
        brings = to_restore(self._core, record.restore_from)
        self._store.change(
            record.uuid,
            self._clock(),
            expect={"restore_from": record.restore_from, "rollback_to": record.rollback_to},
            restoring=brings,
            event=("phase", {"phase": "restoring", "ms": self._since(record), **brings}),
        )

    def _own_volume(self, record: Record) -> Record | None:
        if not (record.archived_at and record.files_of) or (seen := self._runtime.observe(record.uuid)) is None:
            return None
        taken = take_back(self._core, record, seen, self._clock())
        return replace(taken, generation=record.generation, lease=record.lease) if taken else None

    def _note_restored(self, record: Record, restored: RestoredPoint | None) -> Record:
        older = restored if restored and restored.fell_back else None
        replaced = bool(record.files_of or (record.archived_at and older))
        brought = to_restore(self._core, _restored_from(record, older))
        change: dict[str, Any] = {
            "files_of": restored.created_at if replaced and restored else record.files_of,
            "event": ("phase", {"phase": "restored", "ms": self._since(record), **brought}),
        }
        if replaced and older:
            # Data of the newest point is missing. What is there now is saved at once, and all points are looked at.
            change |= {"point": older.id, "point_at": 0.0, "point_checked_at": 0.0}
        if record.rollback_to:
            change = self._rolling_back.finish(record, restored)
        after = self._store.change(
            record.uuid,
            self._clock(),
            expect={"restore_from": record.restore_from, "rollback_to": record.rollback_to},
            restore_from="",
            restoring={},
            provisioned=True,
            archived_at=0.0,
            ledger=self._kept(),
            **change,
        ).record
        if record.rollback_to:
            self._store.look_earlier(keys.POINTS_DUE, record.uuid, self._clock())
        elif replaced:
            self._tell_restored(record, restored)
            if older:
                self._core.sessions.ask_for_point(record.uuid, "interval")
        if record.archived_at:
            self._leave_archive(record)
        # A newer intent is noticed by the next change.
        return replace(after, generation=record.generation, lease=record.lease)

    def _leave_archive(self, record: Record) -> None:
        """The files of an archived session are on a volume again."""
        self._archived.unmark(record.uuid)
        if record.ttl:
            self._store.look_earlier(keys.EXPIRY, record.uuid, self._clock() + record.ttl)
        try:
            StoredPoints(self._core).index(record)
        except (PermanentError, RetryableError) as error:
            log.warning("the daily look lists its restore points: %s", error, extra={"uuid": record.uuid})
        self._core.counters.count("unarchived")

    def _discard(self, record: Record) -> None:
        """The volume is lost: end what still runs. One that is only out of reach is kept, and told of."""
        kept = self._runtime.discard(record.identity, record.generation)
        self._inbox.agent_gone(record.uuid)
        self._note_stopped(record, ended=True)
        if kept:
            log.warning("the old volume %s is kept", kept, extra={"uuid": record.uuid})
            told = {"restore_from": record.restore_from, "files_of": iso(record.files_of), "kept": kept}
            self._core.events.append(record.uuid, "files_lost", told)

    def _tell_restored(self, record: Record, restored: RestoredPoint | None) -> None:
        """The files of a lost volume are there again, or those of an archived session, of an older restore point."""
        asked = parse(record.restore_from)
        if asked and restored and restored.fell_back:
            self._core.restore_points.mark_broken(record.uuid, asked[1:])
        told = {
            "files_of": iso(restored.created_at if restored else record.files_of),
            "restore_from": reference(record.uuid, restored.id) if restored else record.restore_from,
            "fell_back": restored is not None and restored.fell_back,
        }
        self._core.events.append(record.uuid, "files_restored", told)
        if not record.archived_at:
            self._core.counters.count("volumes_restored")

    def _shut_down_agent(self, record: Record, reason: str) -> Left:
        """Shut the agent down before the workspace is stopped, and report its unsaved work."""
        agent = self._inbox.leaving_agent(record.uuid)
        if agent is None or record.stopping:
            return Left()
        left = shut_down(
            self._core, agent, reason, record.generation, while_wanted(self._store, record, newer, every=0.0)
        )
        if (unsaved := left.unsaved_work) is not None:
            self._update(record, unsaved_work=unsaved, event=("risk", unsaved) if unsaved else None)
        return left

    def _delete_points(self, record: Record) -> None:
        """Restore points end with their session. Those that can't be deleted now are by the reconcile sweep."""
        self._store.defer(keys.ARCHIVING, record.uuid, 0.0)
        self._store.forget_points(record.uuid)
        try:
            StoredPoints(self._core).delete(record.uuid)
        except (PermanentError, RetryableError) as error:
            log.warning("restore points were not deleted: %s", error, extra={"uuid": record.uuid})

    def _keep_conversation(self, record: Record) -> None:
        """End the remaining prompts, and start the retention of the conversation."""
        self._inbox.close(record.uuid, DELETED, self._clock())
        try:
            self._core.history_store.renew(record.uuid)
        except SessionError as error:
            log.warning("the retention of the conversation was not renewed: %s", error, extra={"uuid": record.uuid})

    def _last_backup(self, record: Record) -> str:
        """The name of a verified backup of all the session's files, "" when it never had any. If the files are gone
        this is the newest backup; if they are still to be restored, the backup they come from; and a backup that an
        earlier attempt made for this teardown is used again."""
        if record.backup_generation == record.generation:
            return record.backup
        if parse(record.restore_from):
            # Restore points end with their session.
            try:
                self._bring_files(record, starting=False, ends=newer)
            except PointsBroken:
                source, _ = older_copy(self._core, record)
                if not source:
                    raise
                return source
        elif record.restore_from:
            return record.restore_from
        elif not record.provisioned:
            return ""
        try:
            return self._write_backup(
                record, while_wanted(self._store, record, newer), partial=record.delete_partial
            ).name
        except FilesGone:
            source, files_of = newest_copy(self._core, record)
            if not parse(source):
                return source
            record = self._update(record, restore_from=source, files_of=files_of, provisioned=False)
            return self._last_backup(record)

    def _write_backup(self, record: Record, check: Check, *, partial: bool) -> Backup:
        store = self._core.backup_store
        store.prepare(record.uuid)
        # One that was stored when Redis was away is in no list, and its name is taken.
        StoredBackups(self._core).index(store.names_of(record.uuid))
        name, begun = self._free_name(record.uuid), self._clock()
        summary = self._runtime.backup(record.uuid, name, partial=partial, check=check)
        phases = {"verified": round((self._clock() - begun) * 1000)}
        backup = Backup(
            name=name,
            uuid=record.uuid,
            user_id=record.user_id,
            # The clock of a Job's node may be behind; the backup's age counts by ours.
            created_at=max(summary.created_at, begun),
            size=summary.size,
            files=summary.files,
            content_bytes=summary.content_bytes,
            sha256=summary.sha256,
            verified=True,
            origin=record.identity,
            changed=summary.changed,
            unreadable=summary.unreadable,
            complete=not summary.unreadable_count,
        )
        self._core.backups.add(backup)
        notify(self._core, done("backup", record, self._clock(), since=begun, phases=phases))
        return backup

    def _free_name(self, uuid: str) -> str:
        """An unused backup name: names have whole seconds, and two backups may be made in one."""
        when = self._clock()
        while not self._core.backups.unknown([name := backup_name(uuid, when)]):
            when += 1
        return name

    def _update(self, record: Record, **change: object) -> Record:
        """Change the record as part of this attempt; raises `Superseded` when another attempt took over."""
        expect = {"generation": record.generation, "lease": record.lease}
        return self._store.change(record.uuid, self._clock(), expect=expect, **change).record  # type: ignore[arg-type]

    def _since(self, record: Record) -> int:
        """Milliseconds since the request."""
        return max(0, round((self._clock() - record.requested_at) * 1000))


def lacking_of(backup: Backup) -> dict[str, list[str]]:
    """What a session's record says of the files that its last backup lacks (`backup_lacks`)."""
    return {} if backup.complete else {"unreadable": list(backup.unreadable[:UNREADABLE_SHOWN])}


def _goes_back(record: Record) -> bool:
    """Whether the files are to be those of an earlier moment: of a rollback, or another session's."""
    source = parse(record.restore_from)
    return bool(record.rollback_to or (source and source[0] != record.uuid))


def _restored_from(record: Record, older: RestoredPoint | None) -> str:
    """What the files were restored from: an `older` point of the same session if the one asked for was broken."""
    asked = parse(record.restore_from)
    return reference(asked[0], older.id) if asked and older else record.restore_from


def _lost(record: Record) -> bool:
    """Whether the session's volume is lost, and its files are not restored yet (workers/lifecycle/lost_files.py)."""
    return bool(record.restore_from and record.files_of) and not record.provisioned and not record.archived_at


def _unchanged(record: Record, left: Left) -> bool:
    """Whether the agent finds the files as they were at the last stop, and a restore point has been made since."""
    saved = record.point_at and record.point_at >= record.compute_until
    return bool(saved and left.fingerprint and left.fingerprint == record.left_fingerprint)
