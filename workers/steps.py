"""The steps for each intent of a session: start its workspace, stop it, delete it, back it up.

**A step that may be superseded can be interrupted at any line, and its successor leaves what the newer intent needs.**
So each step begins from an unknown state and completes what another may have left half done: a start finishes the
volume and the restore, resumes an agent that was shut down, and releases the prompts that were held; a stop does not
begin before the files are in place; a deletion stops, backs up and removes, whatever of it was done before. Long work
checks now and then whether it is still wanted (`check`). Every step may be repeated, also by two attempts at once. No
step waits for readiness: the observer sees that (workers/activation.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from app.core.backups.index import Backup
from app.core.backups.store import backup_name
from app.core.composition import Core
from app.core.errors import (
    FilesGoing,
    FilesGone,
    SessionError,
    StateUnavailable,
    Superseded,
)
from app.core.redis import keys, task_queue
from app.core.sessions.change import Intervals
from app.core.sessions.model import GONE, Record, Status
from workers import outcomes
from workers.activation import catch_up
from workers.runtime.base import Check, Runtime
from workers.shutdown import shut_down

log = logging.getLogger(__name__)

EVENTS_KEPT_ASLEEP = 600.0
"""s: a sleeping session may cost 2 KB, and any stream takes 4 KB in Redis (measured on 7.0)."""

CHECK_EVERY = 0.5
"""s between two checks whether long work is still wanted: a newer intent waits for this."""

UNREADABLE_SHOWN = 10
"""Paths of unreadable files in the session's status; the sidecar of the backup has up to a hundred."""

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

    def act(self, record: Record) -> None:
        """Carry out the record's intent."""
        match record.status:
            case Status.CREATED | Status.WAKING:
                self._start(record)
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
        backup = self._write_backup(record, self._check(record, _forced), partial=True)
        lacking = {} if backup.complete else {"unreadable": list(backup.unreadable[:UNREADABLE_SHOWN])}
        done = ("backup", {"status": "done", "name": backup.name, **lacking})
        self._store.change(record.uuid, self._clock(), backup=backup.name, backup_lacks=lacking, event=done)

    def _start(self, record: Record) -> None:
        # When a worker first took the task; this may be a repetition.
        enqueued = record.phases.get("enqueued", self._since(record))
        self._bring_files(record, starting=True)
        if record.stopping:
            # Do not wait here for the old processes to end: that would occupy a worker.
            self._runtime.stop(record.uuid, record.generation, patience=0.0)
            self._inbox.agent_gone(record.uuid)
            self._note_stopped(record, ended=True)
        self._begin_epochs(record)
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
        # The attempt is complete: from here the editor's time to answer counts.
        done = self._update(record, started_at=self._clock(), tries=0, missed=0)
        catch_up(self._core, self._runtime, done, self._clock())
        if ran:
            # An interrupted stop may have shut its agent down, and then the agent does not call for prompts.
            self._core.tasks.deliver(record.uuid, record.request_id)

    def _sleep(self, record: Record) -> None:
        phases = {"enqueued": self._since(record)}
        self._bring_files(record, starting=False)
        if not record.provisioned:
            self._update(record, provisioned=True, ledger=self._kept())
        if not self._inbox.hold(record.uuid, record.generation, self._clock()):
            raise Superseded(f"Session {record.uuid} is wanted again.")
        self._shut_down_agent(record, "sleep")
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
            ledger=self._kept(),  # where an earlier release made the volume
            event=("state", {"status": Status.SLEEPING, "replicas": 0}),
        )
        self._core.counters.count("sleeps")
        outcomes.succeeded(self._core.counters, record, "sleep", self._clock(), phases=phases)

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
                self._update(record, missed=record.generation, tries=0)
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
            self._keep_conversation(record)
            now = self._clock()
            ended = Intervals(ran_until=now, kept_until=now)
            self._update(record, to=Status.TERMINATED, settle=True, replicas=0, pod_name="", ledger=ended)
            self._core.counters.count("teardowns")
            outcomes.succeeded(self._core.counters, record, "delete", self._clock(), phases=phases)

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

    def _begin_epochs(self, record: Record) -> None:
        """Give a session of an earlier release its first epoch, unless its processes run: their token names none."""
        if record.epoch:
            return
        seen = self._runtime.observe(record.uuid)
        if seen is None or not seen.running:
            with suppress(Superseded):  # another worker has done it
                self._store.change(record.uuid, self._clock(), expect={"epoch": 0}, next_epoch=True)

    def _hand_on(self, record: Record, task: str) -> None:
        """Let another task continue this intent as soon as the lease is released."""
        self._update(record, then=task, missed=record.generation, tries=0)

    def _bring_files(self, record: Record, *, starting: bool) -> None:
        """Make sure that the session has its volume, with the files of the backup it is to start from."""
        if record.restore_from:
            # A newer intent needs the files as well, unless it is a deletion.
            self._runtime.restore(record.identity, record.generation, check=self._check(record, _gone))
            self._store.change(
                record.uuid,
                self._clock(),
                expect={"restore_from": record.restore_from},
                restore_from="",
                provisioned=True,
                ledger=self._kept(),
                event=("phase", {"phase": "restored", "ms": self._since(record)}),
            )
        elif not record.provisioned:
            self._runtime.provision(record.identity, record.generation, starting=starting)

    def _shut_down_agent(self, record: Record, reason: str) -> None:
        """Shut the agent down before the workspace is stopped, and report its unsaved work."""
        agent = self._inbox.leaving_agent(record.uuid)
        if agent is None or record.stopping:
            return
        risk = shut_down(self._core, agent, reason, record.generation, self._check(record, _newer, every=0.0))
        if risk is not None:
            self._update(record, risk=risk, event=("risk", risk) if risk else None)

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
        if record.restore_from:
            return record.restore_from
        if not record.provisioned:
            return ""
        try:
            return self._write_backup(record, self._check(record, _newer), partial=record.delete_partial).name
        except FilesGone:
            newest = self._core.backups.newest_of(record.uuid)
            return newest.name if newest else ""

    def _write_backup(self, record: Record, check: Check, *, partial: bool) -> Backup:
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
        self._core.counters.count("backups")
        outcomes.succeeded(self._core.counters, record, "backup", self._clock(), since=begun, phases=phases)
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

    def _check(self, begun: Record, ends: Callable[[Record, Record], bool], every: float = CHECK_EVERY) -> Check:
        """The `Check` of long work: raises `Superseded` once `ends`, given the record at the start and now, is true."""
        look_at = 0.0

        def check() -> None:
            nonlocal look_at
            if time.monotonic() < look_at:
                return
            look_at = time.monotonic() + every
            try:
                now = self._store.get(begun.uuid)
            except StateUnavailable:
                return  # the next check will tell
            if ends(begun, now):
                raise Superseded(f"Session {begun.uuid} is {now.status}, so this is no longer wanted.")

        return check

    def _since(self, record: Record) -> int:
        """Milliseconds since the request."""
        return max(0, round((self._clock() - record.requested_at) * 1000))


def _newer(begun: Record, now: Record) -> bool:
    """Whether another attempt took over."""
    return (begun.generation, begun.lease) != (now.generation, now.lease)


def _gone(begun: Record, now: Record) -> bool:
    """Whether another attempt took over, or the session is being deleted and needs no files."""
    return begun.lease != now.lease or now.status in GONE


def _forced(begun: Record, now: Record) -> bool:
    """Whether the session is to be deleted without a backup."""
    return now.status in GONE and not now.delete_backup
