"""What is done for each thing that can be wanted of a session: bring its workspace up, put it down, tear it down, back
it up.

**A step that may be superseded can be broken off at any line, and whoever takes over leaves what the newer intent
needs.** So each step begins from a state it does not know, and puts right what another may have left half done: a start
finishes the volume and the restore, has an agent called back that was told to take nothing more, and given the prompts
that were held back; a stop does not begin before the files are there; a deletion stops, backs up and removes, whatever
of it was done before. What takes long asks now and then whether it is still wanted (`check`). Every step may be
repeated, also beside another attempt at it. Nothing waits for readiness: the watcher sees that (workers/arrival.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from app.sessions import keys, queue
from app.sessions.backup_files import backup_name
from app.sessions.backups import Backup
from app.sessions.core import Core
from app.sessions.errors import (
    FilesGoing,
    FilesGone,
    SessionError,
    StateUnavailable,
    Superseded,
)
from app.sessions.model import GONE, Record, Status
from workers.arrival import catch_up
from workers.leaving import take_leave
from workers.runtime.base import Check, Runtime

log = logging.getLogger(__name__)

EVENTS_KEPT_ASLEEP = 600.0
"""s: a sleeping session may cost 2 KB, and Redis gives any stream 4 KB (measured on 7.0)."""

CHECK_EVERY = 0.5
"""s between two looks whether long work is still wanted: whoever supersedes it waits for this."""

UNREADABLE_SHOWN = 10
"""Paths in the session's status; the backup's own entry has more of them, its sidecar a hundred."""

DELETED = "The session was deleted before this was done."


class Steps:
    """The steps, through a runtime. Each raises `Superseded` when its intent, or its lease, is another's now."""

    def __init__(self, core: Core, runtime: Runtime, clock: Callable[[], float]) -> None:
        self._core = core
        self._store = core.store
        self._inbox = core.inbox
        self._runtime = runtime
        self._clock = clock

    def act(self, record: Record) -> None:
        """Do what the record asks for."""
        match record.status:
            case Status.CREATED | Status.WAKING:
                self._bring_up(record)
            case Status.SLEEPING:
                self._put_down(record)
            case Status.TERMINATING if record.task == queue.LEAVE:
                self._leave(record)
            case Status.TERMINATING:
                self._tear_down(record)

    def back_up(self, record: Record) -> None:
        """Make a backup of the files as they are; a deletion that wants none breaks it off."""
        if record.status in GONE and not record.delete_backup:
            return
        backup = self._write_backup(record, self._check(record, _forced), partial=True)
        lacking = {} if backup.complete else {"unreadable": list(backup.unreadable[:UNREADABLE_SHOWN])}
        done = ("backup", {"status": "done", "name": backup.name, **lacking})
        self._store.change(record.uuid, self._clock(), backup=backup.name, backup_lacks=lacking, event=done)

    def _bring_up(self, record: Record) -> None:
        # The first time it was taken, should this be a repeated task.
        enqueued = record.phases.get("enqueued", self._since(record))
        self._bring_files(record, starting=True)
        if record.stopping:
            # Those who wait for a wake don't wait for this one's processes to end.
            self._runtime.stop(record.uuid, record.generation, patience=0.0)
            self._inbox.agent_gone(record.uuid)
            self._note_stopped(record, ended=True)
        self._begin_epochs(record)
        # Noted before the start, so that a session whose processes run is always known to have a volume.
        noted = self._update(
            record,
            provisioned=True,
            phases={"enqueued": enqueued},
            event=("phase", {"phase": "enqueued", "ms": enqueued}),
        )
        self._inbox.release(record.uuid, self._clock())
        ran = self._runtime.start(record.uuid, record.generation, noted.epoch)
        # From here its time to answer counts, and no worker needs to start it again: the attempt came to its end.
        done = self._update(record, started_at=self._clock(), tries=0, missed=0)
        catch_up(self._core, self._runtime, done, self._clock())
        if ran:
            # A stop was broken off, of whose agent leave may have been taken: it calls no more.
            self._core.tasks.send(queue.DELIVER, record.uuid, request_id=record.request_id)

    def _put_down(self, record: Record) -> None:
        self._bring_files(record, starting=False)
        if not record.provisioned:
            self._update(record, provisioned=True)
        if not self._inbox.hold(record.uuid, record.generation, self._clock()):
            raise Superseded(f"Session {record.uuid} is wanted again.")
        self._take_leave(record, "sleep")
        stopped = self._stop(record)
        self._inbox.agent_gone(record.uuid)
        # Whoever starts it next may not ask us.
        self._runtime.renew(record.uuid, stopped.epoch)
        self._update(
            record,
            settle=True,
            replicas=0,
            pod_name="",
            events_ttl=EVENTS_KEPT_ASLEEP,
            event=("state", {"status": Status.SLEEPING, "replicas": 0}),
        )
        self._core.fleet.count("sleeps")

    def _leave(self, record: Record) -> None:
        """What a deletion begins with, apart from the rest: waiting for an agent, and for processes to end, is not to
        hold up those who wait for a backup."""
        self._inbox.agent_leaves(record.uuid)
        self._take_leave(record, "delete")
        self._stop_unless_files_go(record)
        self._inbox.agent_gone(record.uuid)
        self._hand_on(record, queue.TEARDOWN)

    def _tear_down(self, record: Record) -> None:
        """Stop, back up, verify, and only then delete. A running backup goes first, and its end resumes this.
        Files that last only while the workspace runs are backed up while it does."""
        if self._inbox.has_agent(record.uuid):
            self._hand_on(record, queue.LEAVE)
            return
        with self._core.leases.hold(keys.BACKUP_LEASE.format(uuid=record.uuid)) as free:
            if not free:
                log.info("teardown waits for a backup", extra={"uuid": record.uuid})
                self._update(record, missed=record.generation, tries=0)
                return
            self._stop_unless_files_go(record)
            if record.delete_backup:
                self._update(record, backup=self._last_backup(record), backup_generation=record.generation)
            self._update(record, event=("phase", {"phase": "deleting", "ms": self._since(record)}))
            self._runtime.remove(record.uuid, record.generation, force=not record.delete_backup)
            self._store.defer(keys.BACKUP_REQUESTS, record.uuid, 0.0)
            self._keep_conversation(record)
            self._update(record, to=Status.TERMINATED, settle=True, replicas=0, pod_name="")
            self._core.fleet.count("teardowns")

    def _stop_unless_files_go(self, record: Record) -> None:
        try:
            self._stop(record)
            self._update(record, replicas=0, pod_name="")
        except FilesGoing as error:
            log.warning("not stopped before its backup: %s", error, extra={"uuid": record.uuid})

    def _stop(self, record: Record) -> Record:
        """Stop the processes, with whose end their token ends; answers the record as it is then. Where they take their
        time this raises `StillEnding`, and whoever comes next, for whatever intent, goes on with it before anything
        else is started."""
        # Also a last look whether it is still wanted.
        self._update(record, stopping=True)
        try:
            self._runtime.stop(record.uuid, record.generation)
        except FilesGoing:
            self._note_stopped(record, ended=False)
            raise
        return self._note_stopped(record, ended=True)

    def _note_stopped(self, record: Record, *, ended: bool) -> Record:
        """Note that nothing is being stopped any more, and with `ended` that nothing runs: then its token has ended
        too. Also where a newer intent stands: it needs not look itself."""
        expect = {"lease": record.lease}
        return self._store.change(record.uuid, self._clock(), expect=expect, stopping=False, next_epoch=ended).record

    def _begin_epochs(self, record: Record) -> None:
        """Give a session of an earlier release its first epoch, unless something runs: that has a token without one."""
        if record.epoch:
            return
        seen = self._runtime.observe(record.uuid)
        if seen is None or not seen.running:
            with suppress(Superseded):  # it has one by now
                self._store.change(record.uuid, self._clock(), expect={"epoch": 0}, next_epoch=True)

    def _hand_on(self, record: Record, task: str) -> None:
        """Let another task go on with this intent, as soon as the lease is let go."""
        self._update(record, then=task, missed=record.generation, tries=0)

    def _bring_files(self, record: Record, *, starting: bool) -> None:
        """See to it that the session has its volume, with the files it was to begin with."""
        if record.restore_from:
            # Whoever supersedes this needs the files as well, unless it is a deletion.
            self._runtime.restore(record.identity, record.generation, check=self._check(record, _gone))
            self._store.change(
                record.uuid,
                self._clock(),
                expect={"restore_from": record.restore_from},
                restore_from="",
                provisioned=True,
                event=("phase", {"phase": "restored", "ms": self._since(record)}),
            )
        elif not record.provisioned:
            self._runtime.provision(record.identity, record.generation, starting=starting)

    def _take_leave(self, record: Record, reason: str) -> None:
        """Take leave of its agent, and tell what that puts at risk, before anything of it is stopped."""
        agent = self._inbox.leaving_agent(record.uuid)
        if agent is None or record.stopping:
            return
        risk = take_leave(self._core, agent, reason, record.generation, self._check(record, _newer, every=0.0))
        if risk is not None:
            self._update(record, risk=risk, event=("risk", risk) if risk else None)

    def _keep_conversation(self, record: Record) -> None:
        """End the prompts that were left, and let the conversation's retention count from now."""
        self._inbox.close(record.uuid, DELETED, self._clock())
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
            return self._write_backup(record, self._check(record, _newer), partial=record.delete_partial).name
        except FilesGone:
            newest = self._core.backups.newest_of(record.uuid)
            return newest.name if newest else ""

    def _write_backup(self, record: Record, check: Check, *, partial: bool) -> Backup:
        name, begun = self._free_name(record.uuid), self._clock()
        summary = self._runtime.backup(record.uuid, name, partial=partial, check=check)
        backup = Backup(
            name=name,
            uuid=record.uuid,
            user_id=record.user_id,
            # A Job's node may have a clock that is behind; its age is counted by ours.
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
        self._core.fleet.count("backups")
        return backup

    def _free_name(self, uuid: str) -> str:
        """A backup name not in use: names count whole seconds, and two backups may fall into one."""
        when = self._clock()
        while not self._core.backups.unknown([name := backup_name(uuid, when)]):
            when += 1
        return name

    def _update(self, record: Record, **change: object) -> Record:
        """Change the record as part of this attempt; raises `Superseded` when another one took over."""
        expect = {"generation": record.generation, "lease": record.lease}
        return self._store.change(record.uuid, self._clock(), expect=expect, **change).record  # type: ignore[arg-type]

    def _check(self, begun: Record, ends: Callable[[Record, Record], bool], every: float = CHECK_EVERY) -> Check:
        """What long work calls now and then: raises `Superseded` once the record as it is now `ends` what was begun."""
        look_at = 0.0

        def check() -> None:
            nonlocal look_at
            if time.monotonic() < look_at:
                return
            look_at = time.monotonic() + every
            try:
                now = self._store.get(begun.uuid)
            except StateUnavailable:
                return  # it will be asked again
            if ends(begun, now):
                raise Superseded(f"Session {begun.uuid} is {now.status}: this is not wanted any more.")

        return check

    def _since(self, record: Record) -> int:
        """Milliseconds since the request."""
        return max(0, round((self._clock() - record.requested_at) * 1000))


def _newer(begun: Record, now: Record) -> bool:
    """Whether another attempt took over."""
    return (begun.generation, begun.lease) != (now.generation, now.lease)


def _gone(begun: Record, now: Record) -> bool:
    """Whether another attempt took over, or will, that has no use for the session's files."""
    return begun.lease != now.lease or now.status in GONE


def _forced(begun: Record, now: Record) -> bool:
    """Whether the session is to be deleted without a backup."""
    return now.status in GONE and not now.delete_backup
