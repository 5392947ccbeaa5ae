"""The archive: sleeping sessions that nobody uses for their `ttl` have no volume, only a restore point and a record.

The sweep asks (`Archiving`): first for a restore point of the files as they are, all of whose data was read back, then
for the intent that removes the workspace. `Archive` is what that intent's step needs of the store. Nothing fails a
session here: on any doubt it sleeps on with its volume, and is looked at again.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from typing import Any

from app.core.composition import Core
from app.core.errors import BackupIncomplete, PermanentError, RetryableError, SessionError, StateUnavailable
from app.core.redis import keys, task_queue
from app.core.restore_points.index import RestorePoint
from app.core.restore_points.names import parse, reference
from app.core.sessions.counted_time import Counted
from app.core.sessions.idle_policy import EXPIRY_RETRY, expiry_verdict
from app.core.sessions.model import Record, Status
from app.core.storage.archive_keys import ArchiveKeys
from workers.lifecycle.point_making import kept_events
from workers.restore_points.marker import Marker, Markers

log = logging.getLogger(__name__)

TRIGGER = "archive"
"""Of a restore point that is to take its volume's place: all content is looked at, and all data is read back."""

RECHECK = 60.0
"""s until another look at a session that can't be archived now, at most: its `ttl`, if that is shorter."""

LACKS = "Not archived: files that can't be read would be lost ({count}). Make them readable, or delete them."

LIMIT = 3_600.0
"""s after which a session that is still not archived gives its place to another: the longest that a Job may take."""


class Archiving:
    """Archives at most `ARCHIVES_AT_ONCE` sessions at a time. Times are seconds since the epoch."""

    def __init__(self, core: Core, clock: Callable[[], float] = time.time) -> None:
        self._core = core
        self._store = core.store
        self._clock = clock
        self._told = -math.inf

    def take(self, record: Record, now: float) -> float:
        """Begin to archive a session, if there is room; returns when to look at it again."""
        again = now + min(record.ttl, RECHECK)
        if not self._core.settings.archive_key:
            self._tell(now, "nothing is archived without an ARCHIVE_KEY: sleeping sessions keep their volumes")
            return now + EXPIRY_RETRY
        if not can_be_archived(record) or self._store.pending(keys.ARCHIVING, record.uuid):
            return again
        if self._looked_at(record) and lacking(self._core, record):
            # Nobody changes that before it is awake again.
            return now + EXPIRY_RETRY
        if (size := self._store.size(keys.ARCHIVING)) >= self._core.settings.archives_at_once:
            self._tell(now, f"{size} sessions are being archived; others wait")
            # At moments of their own: a place that becomes free is soon taken, and no sweep looks at all that wait.
            return now + random.uniform(0.0, again - now)
        self._store.schedule(keys.ARCHIVING, record.uuid, now)
        self._go_on(record, now)
        return again

    def go_on(self, counted: Counted) -> None:
        """Go on with those that were begun."""
        now, retention = counted.now, self._core.settings.archive_retention
        late = {record.uuid for record in self._store.due(keys.ARCHIVING, now - LIMIT)}
        for record in self._store.due(keys.ARCHIVING, math.inf):
            if record.uuid in late:
                log.warning("not archived in time; it is tried again later", extra={"uuid": record.uuid})
                give_up(self._core, record, now)
            elif record.task == task_queue.ARCHIVE and record.settled < record.generation:
                continue
            elif expiry_verdict(record, counted, retention).archive and can_be_archived(record):
                self._go_on(record, now)
            else:
                self._store.defer(keys.ARCHIVING, record.uuid, 0.0)

    def finish(self, record: Record) -> None:
        """Ask again for the removal of an archived session's workspace, which is still there."""
        try:
            self._core.sessions.archive(record)
        except SessionError as error:
            log.info("not archived: %s", error, extra={"uuid": record.uuid})

    def _go_on(self, record: Record, now: float) -> None:
        uuid = record.uuid
        if any(self._store.pending(each, uuid) for each in (keys.POINT_REQUESTS, keys.BACKUP_REQUESTS)):
            if record.point_tries and record.point_error:
                log.warning("not archived, as its restore point fails: it is tried later", extra={"uuid": uuid})
                give_up(self._core, record, now)
            return
        try:
            if safe_point(self._core, record) is not None:
                self._core.sessions.archive(record)
                why = f"unused for its ttl, {record.ttl:.0f} s"
                self._core.audit.note_own("archive", uuid, record.user_id, why)
            elif self._looked_at(record) and (count := lacking(self._core, record)):
                self._tell_lacking(record, count, now)
                give_up(self._core, record, now)
            elif self._looked_at(record) and now - record.point_checked_at < RECHECK:
                # The look has just left no point that is whole.
                give_up(self._core, record, now)
            else:
                self._core.sessions.ask_for_point(uuid, TRIGGER)
        except StateUnavailable:
            raise
        except SessionError as error:
            log.info("not archived: %s", error, extra={"uuid": uuid})

    @staticmethod
    def _looked_at(record: Record) -> bool:
        """Whether all its files as they are were looked at."""
        return record.point_checked_at >= record.compute_until

    def _tell_lacking(self, record: Record, count: int, now: float) -> None:
        why: dict[str, Any] = {"reason": LACKS.format(count=count), "reason_code": BackupIncomplete.code}
        log.warning("%s", why["reason"], extra={"uuid": record.uuid})
        event, kept = ("state", {"status": record.status, **why}), kept_events(record)
        expect = {"generation": record.generation}
        self._store.change(record.uuid, now, expect=expect, event=event, events_ttl=kept, **why)

    def _tell(self, now: float, text: str) -> None:
        """Log it, at most once in `RECHECK`."""
        if now - self._told >= RECHECK:
            log.warning("%s", text)
            self._told = now


def can_be_archived(record: Record) -> bool:
    """Whether a session sleeps, with all its files on its volume and nothing else to be done."""
    settled = record.settled >= record.generation and not record.stopping and not record.compute_since
    return settled and record.status is Status.SLEEPING and record.provisioned and not record.restore_from


def safe_point(core: Core, record: Record) -> RestorePoint | None:
    """The restore point that has all files as they are, and whose data was read back since it was made; None if there
    is none. Of a session that is already archived, the one it is restored from."""
    if record.archived_at and (source := parse(record.restore_from)):
        return core.restore_points.get(*source)
    point = point_of_now(core, record)
    whole = point and not point.broken and not point.unreadable and point.verified_at >= point.created_at
    return point if whole else None


def lacking(core: Core, record: Record) -> int:
    """How many files the newest restore point of a session that sleeps lacks, as they can't be read."""
    point = point_of_now(core, record)
    return point.unreadable if point else 0


def point_of_now(core: Core, record: Record) -> RestorePoint | None:
    """The newest restore point of a session that sleeps, if it is of the files as they are."""
    if not record.point or not record.point_at or record.point_at < record.compute_until:
        return None
    return core.restore_points.get(record.uuid, record.point)


def give_up(core: Core, record: Record, now: float) -> None:
    """Let the session sleep on with its volume; it is looked at again later."""
    core.store.defer(keys.ARCHIVING, record.uuid, 0.0)
    core.store.defer(keys.EXPIRY, record.uuid, now + EXPIRY_RETRY)


class Archive:
    """The markers of archived sessions in the store. Raises as `Markers`."""

    def __init__(self, core: Core) -> None:
        self._files = core.backup_store.files
        self._keys = ArchiveKeys(core.settings.archive_key)

    def markers(self, uuid: str) -> Markers:
        return Markers(self._files, self._keys.session(uuid))

    def mark(self, record: Record, point: RestorePoint, now: float) -> None:
        """Write the session's marker."""
        self.markers(record.uuid).write(Marker.of(record, reference(record.uuid, point.id), point, now))

    def unmark(self, uuid: str) -> None:
        """Remove the marker of a session that has a volume again. One that stays is harmless: a workspace comes before
        it, as does a newer restore point, and the daily look removes it."""
        try:
            self.markers(uuid).remove()
        except (RetryableError, PermanentError) as error:
            log.warning("the marker of an archived session was not removed: %s", error, extra={"uuid": uuid})
