"""Brings sessions back whose volume is gone, from the newest of their restore points and backups."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from app.core.composition import Core
from app.core.errors import (
    FilesGone,
    IllegalState,
    PermanentError,
    PointsBroken,
    RuntimeUnavailable,
    SessionNotFound,
    Superseded,
)
from app.core.redis import keys, task_queue
from app.core.restore_points.names import parse, reference
from app.core.sessions.change import Change, Intervals
from app.core.sessions.model import Record, Status, iso
from app.core.sessions.reason_codes import MACHINE_SILENT, ReasonCode
from workers.lifecycle.ended import STARTING
from workers.lifecycle.place import Place

log = logging.getLogger(__name__)

RESTORING = "The volume was lost. The files of {files_of} are being restored."


class Fail(Protocol):
    """Makes a session `failed`."""

    def __call__(self, record: Record, reason: str, *, reason_code: str = "", **fields: object) -> None: ...


class LostFiles:
    """Times are seconds since the epoch."""

    def __init__(self, core: Core, place: Place, fail: Fail, clock: Callable[[], float] = time.time) -> None:
        self._core = core
        self._place = place
        self._fail = fail
        self._clock = clock

    def bring_back(self, record: Record, *, out_of_reach: bool = False) -> None:
        """Restore the newest copy of the session's files: it wakes again, or stays asleep. Without one it is `failed`.
        A volume `out_of_reach` is replaced. A newer intent is left alone. Raises `RuntimeUnavailable` in another place
        than the workspaces were in."""
        self._refuse_another_place(record)
        source, files_of = newest_copy(self._core, record)
        if source:
            self._restore(record, source, files_of, record.volume + out_of_reach)
        else:
            self._fail_empty(record)

    def take_older(self, record: Record, error: PermanentError) -> bool:
        """Restore the next older copy, as the one in `restore_from` can't be read; whether there is another. Without
        one, a session whose volume is lost is `failed`: its wake begins with the newest copy again that is not known
        to be broken, or empty if it has no backup. Raises as `bring_back`."""
        self._refuse_another_place(record)
        if isinstance(error, PointsBroken) and (asked := parse(record.restore_from)):
            self._core.restore_points.mark_broken(record.uuid, asked[1:])
        source, files_of = older_copy(self._core, record)
        if source:
            self._restore(record, source, files_of, record.volume)
        elif record.archived_at:
            return False
        elif self._core.backups.newest_of(record.uuid) is None:
            self._fail_empty(record)
        else:
            source, files_of = newest_copy(self._core, record)
            self._fail(record, str(error), reason_code=error.code, restore_from=source, files_of=files_of)
        return True

    def _fail_empty(self, record: Record) -> None:
        reason = "The session's files are gone and it has no backup. Wake it to start empty, or delete it."
        now = self._clock()
        gone = Intervals(ran_until=now, kept_until=now)
        self._fail(record, reason, reason_code=FilesGone.code, provisioned=False, restore_from="", ledger=gone)

    def _refuse_another_place(self, record: Record) -> None:
        """A start waits for the place, and says so."""
        try:
            self._place.refuse_another()
        except RuntimeUnavailable as error:
            if record.status in STARTING and record.reason_code != ReasonCode.WRONG_PLACE:
                why: dict[str, Any] = {"reason": str(error), "reason_code": ReasonCode.WRONG_PLACE}
                event = ("state", {"status": record.status, **why})
                expect = {"generation": record.generation, "lease": record.lease}
                with suppress(Superseded, SessionNotFound):
                    self._core.store.change(record.uuid, self._clock(), expect=expect, event=event, **why)
            raise

    def _restore(self, record: Record, source: str, files_of: float, volume: int) -> None:
        try:
            self._begin_restore(record, source, files_of, volume)
        except (Superseded, IllegalState, SessionNotFound) as error:
            log.info("lost files are left to a newer intent: %s", error, extra={"uuid": record.uuid})

    def _begin_restore(self, record: Record, source: str, files_of: float, volume: int) -> None:
        now, uuid = self._clock(), record.uuid
        lost: dict[str, Any] = {
            "expect": {"generation": record.generation, "lease": record.lease, "status": record.status},
            "provisioned": False,
            "volume": volume,
            "restore_from": source,
            "files_of": files_of,
            "archived_at": 0.0,
            "left_fingerprint": "",
            "ledger": Intervals(kept_until=now),
            "reason": RESTORING.format(files_of=iso(files_of)),
            "reason_code": ReasonCode.FILES_LOST,
        }
        match record.status:
            case Status.ACTIVE:
                # Its processes may run on, without their files.
                self._intend(record, now, to=Status.WAKING, clear_phases=True, stopping=True, replicas=0, **lost)
            case Status.SLEEPING if record.settled >= record.generation:
                self._intend(record, now, event=_state(record, lost["reason"]), **lost)
            case Status.CREATED | Status.WAKING | Status.SLEEPING:
                lost |= {"then": task_queue.RESTORE, "tries": 0, "started_at": 0.0}
                changed = self._core.store.change(uuid, now, event=_state(record, lost["reason"]), **lost)
                # An attempt that holds the lease sends it at its end.
                if not self._core.leases.held(keys.LEASE.format(uuid=uuid)):
                    self._core.sessions.resend(changed.record)
            case _:
                return
        log.warning("the volume is gone; restoring %s", source, extra={"uuid": uuid})
        told = {"restore_from": source, "files_of": iso(files_of)}
        self._core.events.append(uuid, "files_lost", told)
        self._core.counters.count("volumes_lost")
        why = f"its volume was lost, restoring {source}"
        self._core.audit.note_own("bring_back", uuid, record.user_id, why)

    def _intend(self, record: Record, now: float, **wanted: Any) -> None:
        """A new intent, to restore."""
        due = now + self._core.settings.stale_after
        asked = {"task": task_queue.RESTORE, "due": due, "request_id": "", "traceparent": "", "started_at": 0.0}
        changed = self._core.store.apply(record.uuid, now, Change.of(**asked, **wanted))
        self._core.sessions.resend(changed.record)


def out_of_reach(record: Record) -> bool:
    """Whether a start waits for its volume, of whose files there is a copy."""
    waits = record.reason_code == ReasonCode.VOLUME_UNAVAILABLE or record.reason == MACHINE_SILENT
    return waits and bool(record.point or record.backup)


def newest_copy(core: Core, record: Record, *, before: float = math.inf, points: bool = True) -> tuple[str, float]:
    """The newest restore point or backup of a session from before this time, and of when its files are; "" for none.
    With `points` False, the newest backup."""
    point = core.restore_points.newest_before(record.uuid, before) if points else None
    # The files may have been unchanged when another point was asked for.
    point_at = max(point.created_at, record.point_at if record.point == point.id else 0.0) if point else 0.0
    backup = core.backups.newest_of(record.uuid, before)
    if backup and (point is None or backup.created_at > point_at):
        return backup.name, backup.created_at
    return (reference(record.uuid, point.id), point_at) if point else ("", 0.0)


def older_copy(core: Core, record: Record) -> tuple[str, float]:
    """The newest copy of a lost volume's files, or of an archived session's, that is older than what `restore_from`
    names, and than all that a restore of it tries; see `newest_copy`."""
    return newest_copy(core, record, before=_tried_from(record), points=not parse(record.restore_from))


def newest_backup_at(core: Core, record: Record) -> float:
    """When the newest complete backup was made that is older than the restore point to restore: a whole one is better
    than a point from before it. 0 where the user chose the point."""
    source = parse(record.restore_from)
    if not source or source[0] != record.uuid or record.rollback_to or not (record.files_of or record.archived_at):
        return 0.0
    backup = core.backups.newest_of(record.uuid, _tried_from(record))
    return backup.created_at if backup and backup.complete else 0.0


def _tried_from(record: Record) -> float:
    """The time from before which no copy has been tried yet. While a session was archived nothing changed."""
    return record.archived_at or record.files_of


def _state(record: Record, reason: str) -> tuple[str, dict[str, Any]]:
    """The session's state does not change, but its reason."""
    return "state", {"status": record.status, "reason": reason, "reason_code": ReasonCode.FILES_LOST}
