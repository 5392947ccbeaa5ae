"""Rolls a session back to one of its restore points, in place, as a part of its next start or sleep.

    asked      `rollback_to` and `rollback_at` are in the record
    saved      the processes are stopped, a restore point has the present state, `restore_from` names the target
    restored   the files and the conversation are those of the target; the later prompts are marked

Each step begins from an unknown state, as those in workers/lifecycle/steps.py do: whoever starts the session or puts
it to sleep goes on with the rollback, and a deletion wins. If the present state can't be saved, or the target can't be
read, the rollback is called off, and the session goes on with the files it has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from app.core.composition import Core
from app.core.errors import (
    ArchiveError,
    BackupNotFound,
    PermanentError,
    RetryableError,
    RuntimeUnavailable,
    StateUnavailable,
)
from app.core.redis import keys
from app.core.restore_points.names import parse, reference
from app.core.sessions.attempts import MAX_ATTEMPTS
from app.core.sessions.model import Record, iso
from workers.lifecycle.point_making import PointMaking
from workers.lifecycle.wanted import newer, while_wanted
from workers.runtime.base import RestoredPoint, Runtime

log = logging.getLogger(__name__)

NOT_READABLE = (ArchiveError, BackupNotFound)
"""Errors after which the files are as they were before the restore."""

GONE = "The restore point no longer exists."
LACKS = "Files that can't be read would be lost ({count}). Make them readable, or delete them; then roll back again."


class Update(Protocol):
    """Changes the record as part of the attempt."""

    def __call__(self, record: Record, **change: object) -> Record: ...


class RollingBack:
    """Times are seconds since the epoch. `stop` ends the processes."""

    def __init__(
        self,
        core: Core,
        runtime: Runtime,
        clock: Callable[[], float],
        update: Update,
        stop: Callable[[Record], Record],
    ) -> None:
        self._core = core
        self._making = PointMaking(core, runtime, clock)
        self._clock = clock
        self._update = update
        self._stop = stop

    def prepare(self, record: Record) -> Record | None:
        """Save the present state, and have the target restored; None while a backup or a restore point is being made,
        whose end resumes this. Files of a lost volume can't be saved."""
        target = reference(record.uuid, record.rollback_to)
        if record.restore_from == target:
            return record
        if self._core.restore_points.get(record.uuid, record.rollback_to) is None:
            return self.call_off(record, GONE)
        aim = {"restore_from": target, "rollbacks": record.rollbacks + 1, "left_fingerprint": ""}
        if record.restore_from or not record.provisioned:
            # The volume was lost: there is nothing to save. Or a restore point has what is in the archive.
            archived = parse(record.restore_from) if record.archived_at else None
            return self._update(record, **aim, rolled_back={"saved": archived[1]} if archived else {})
        self._core.inbox.agent_leaves(record.uuid)
        record = replace(self._stop(record), generation=record.generation, lease=record.lease)
        self._core.inbox.agent_gone(record.uuid)
        with self._core.leases.hold(keys.BACKUP_LEASE.format(uuid=record.uuid)) as free:
            if not free:
                log.info("the rollback waits for a backup", extra={"uuid": record.uuid})
                self._update(record, tries=0)
                return None
            try:
                saved = self._making.make(record, "rollback", while_wanted(self._core.store, record, newer))
            except (StateUnavailable, RuntimeUnavailable):
                raise
            except RetryableError as error:
                if record.tries < MAX_ATTEMPTS:
                    raise
                return self.call_off(record, str(error))
            except ArchiveError as error:
                return self.call_off(record, str(error))
            if lacking := self._lacking(record, saved):
                return self.call_off(record, LACKS.format(count=lacking))
            # With the lease: no other point is made between this one and the restore.
            return self._update(record, **aim, rolled_back={"saved": saved})

    def _lacking(self, record: Record, point_id: str) -> int:
        """How many of the present files the restore point lacks that was to save them."""
        saved = self._core.restore_points.get(record.uuid, point_id)
        return saved.unreadable if saved else 0

    def _prompts_after(self, uuid: str, when: float) -> list[str]:
        try:
            return self._core.history_store.prompts_after(uuid, when)
        except PermanentError as error:
            log.warning("only prompts that have not expired are marked: %s", error, extra={"uuid": uuid})
            return []

    def call_off(self, record: Record, why: str) -> Record:
        """Go on with the files as they are."""
        log.warning("a rollback was called off: %s", why, extra={"uuid": record.uuid})
        self._core.counters.count("rollbacks_failed")
        told = {"restore_point": record.rollback_to, "at": iso(self._clock()), "error": why[:300]}
        # Those of a lost volume, and of the archive, are still to be restored.
        restored = {"restore_from": ""} if record.provisioned else {}
        if record.archived_at and (saved := record.rolled_back.get("saved")):
            restored = {"restore_from": reference(record.uuid, saved)}
        event = ("rolled_back", {"status": "failed", "restore_point": record.rollback_to, "reason": told["error"]})
        return self._update(record, rollback_to="", rolled_back=told, event=event, **restored)

    def finish(self, record: Record, restored: RestoredPoint | None) -> dict[str, Any]:
        """The files are those of the target: cut the stored conversation, mark the prompts, and answer what to change
        in the record. Repeated as a whole if it is interrupted."""
        uuid, now = record.uuid, self._clock()
        asked = self._core.restore_points.get(uuid, record.rollback_to)
        point_id = restored.id if restored else record.rollback_to
        files_of = restored.created_at if restored else asked.created_at if asked else record.rollback_at
        fell_back = restored is not None and restored.fell_back
        if fell_back:
            self._core.restore_points.mark_broken(uuid, [record.rollback_to])
        # Before they are cut from the conversation: this may be interrupted in between.
        removed = self._prompts_after(uuid, files_of)
        undone = self._core.inbox.roll_back(uuid, files_of, record.rollback_at, now, removed)
        try:
            self._core.history_store.cut(uuid, files_of)
        except PermanentError as error:
            # A damaged copy: the agent replaces it by its own.
            log.warning("the stored conversation was not cut: %s", error, extra={"uuid": uuid})
        told = {
            "restore_point": point_id,
            "restored": "restore_point",
            "files_of": iso(files_of),
            "saved": record.rolled_back.get("saved"),
            "fell_back": fell_back,
        }
        self._core.counters.count("rollbacks")
        log.info("rolled back", extra={"uuid": uuid, "restore_point": point_id, "prompts": undone})
        return {
            "rollback_to": "",
            "files_of": 0.0,
            "reason": "",
            "reason_code": "",
            # What is in no restore point yet is the present state.
            "point_at": 0.0,
            "rolled_back": {**told, "at": iso(now)},
            "event": ("rolled_back", {"status": "done", **told, "prompts": undone}),
        }
