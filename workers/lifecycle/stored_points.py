"""Compares the index of restore points with the store: after Redis was lost it is made again. And deletes the restore
points of deleted sessions, however long that takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from app.core.composition import Core
from app.core.errors import PermanentError, RetryableError, SessionNotFound, Superseded
from app.core.redis import keys
from app.core.restore_points.drilling import first_seen
from app.core.sessions.change import Intervals
from app.core.sessions.model import GONE, UUID_PATTERN, Record, Status
from app.core.storage.archive_keys import ArchiveKeys
from workers.restore_points.alone import alone
from workers.restore_points.marker import NAME as MARKER
from workers.restore_points.marker import Markers
from workers.restore_points.repository import repositories
from workers.restore_points.sidecar import Sidecars
from workers.runtime.base import never

log = logging.getLogger(__name__)

MOST_PUT_OFF = 3
"""Sessions whose points can't be deleted now, after which a sweep tries no other: the store is away."""


class StoredPoints:
    """The stored restore points of all sessions."""

    def __init__(self, core: Core, clock: Callable[[], float] = time.time) -> None:
        self._core = core
        self._clock = clock
        self._files = core.backup_store.files
        self._keys = ArchiveKeys(core.settings.archive_key)

    def look(self) -> None:
        """Index the points of living sessions as their sidecars say; those that one left which has ended go next time.
        One session's trouble harms no other."""
        with self._files.translated("The store of restore points can't be read"):
            uuids = [name for name in self._files.names(self._files.root) if UUID_PATTERN.fullmatch(name)]
        for record in self._core.store.find(uuids):
            try:
                if record.status is Status.TERMINATED:
                    self._core.restore_points.end(record.uuid, self._clock())
                elif self._keys:
                    if record.archived_at:
                        self._schedule_drill(record)
                    else:
                        self.index(record)
                        self._remove_marker(record)
                    self._note_size(record)
            except (RetryableError, PermanentError) as error:
                log.warning("restore points were not looked at: %s", error, extra={"uuid": record.uuid})

    def finish(self) -> None:
        """Delete the points that deletions left: the store was away, or a fork is being restored from one."""
        ending, put_off = self._core.restore_points.ending(), 0
        living = {record.uuid for record in self._core.store.find(ending) if record.status not in GONE}
        for uuid in ending:
            if uuid in living:
                # Its deletion failed after all, and it goes on.
                self._core.restore_points.ended(uuid)
                continue
            try:
                self.delete(uuid)
            except RetryableError as error:
                log.info("restore points are deleted later: %s", error, extra={"uuid": uuid})
                put_off += 1
                if put_off == MOST_PUT_OFF:
                    return
            except PermanentError as error:
                log.warning("restore points can't be deleted: %s", error, extra={"uuid": uuid})

    def delete(self, uuid: str) -> None:
        """Delete the points of a session that ends, unless a fork is being restored from one. What can't be deleted now
        is remembered. Raises as `FileStore`."""
        self._core.restore_points.end(uuid, self._clock())
        if not self._core.restore_points.needed_elsewhere(uuid):
            self._delete_stored(uuid)
            self._core.restore_points.ended(uuid)

    def _delete_stored(self, uuid: str) -> None:
        """The sidecars first: without one there is no point."""
        folder = Sidecars(self._files, self._keys.session(uuid)).folder
        with self._files.translated(f"The restore points of {uuid} could not be deleted"):
            # Without this one the session would come back after a loss of Redis.
            Markers(self._files, self._keys.session(uuid)).remove()
            if not repositories(self._files, uuid) and not self._files.names(folder):
                return
            with alone(self._files, uuid, never):
                self._files.remove_folder(folder)
                for repository in repositories(self._files, uuid):
                    repository.delete()

    def _schedule_drill(self, record: Record) -> None:
        """Have the session drilled, where that was forgotten, or points were made before there were drills."""
        if not (cycle := self._core.settings.drill_cycle):
            return
        points, now = self._core.restore_points.of(record.uuid), self._clock()
        proven = max([record.last_proven, *(each.proven_at for each in points)])
        made = min((each.created_at for each in points), default=now)
        self._core.store.schedule_missing(keys.DRILLS, [record.uuid], first_seen(proven, made, cycle, now))

    def _note_size(self, record: Record) -> None:
        """Have the points cost again whose record was made anew after Redis was lost."""
        if record.points_since or not self._core.restore_points.of(record.uuid):
            return
        if kept := Sidecars(self._files, self._keys.session(record.uuid)).kept():
            now = self._clock()
            # A newer point has told it, or the session is gone.
            with suppress(Superseded, SessionNotFound):
                ledger = Intervals.of_points(now, kept)
                self._core.store.change(record.uuid, now, expect={"points_since": 0.0}, ledger=ledger)

    def _remove_marker(self, record: Record) -> None:
        """Remove the marker of an archived session from one that is not."""
        uuid = record.uuid
        with self._files.translated("The store of restore points can't be read"):
            if MARKER not in self._files.names(f"{self._files.root}/{uuid}"):
                return
        # Who archives a session holds this lease while it writes the marker.
        with self._core.leases.hold(keys.BACKUP_LEASE.format(uuid=uuid)) as free:
            if free and self._core.store.get(uuid).provisioned:
                Markers(self._files, self._keys.session(uuid)).remove()

    def index(self, record: Record) -> None:
        """Index the session's points as their sidecars say, and see that its record names one."""
        sidecars = Sidecars(self._files, self._keys.session(record.uuid))
        known = {each.id for each in self._core.restore_points.of(record.uuid)}
        stored = set(sidecars.ids())
        if stored != known:
            self._correct(record, sidecars, stored, known)
        if stored:
            self._schedule_drill(record)
            self._note_newest(record)

    def index_anew(self, record: Record) -> None:
        """Index the session's points as their sidecars say, those that were found broken as well. Raises as
        `Sidecars`."""
        found = Sidecars(self._files, self._keys.session(record.uuid)).read()
        gone = {each.id for each in self._core.restore_points.of(record.uuid)} - found.keys()
        self._core.restore_points.put(
            record.uuid, [each.point() for each in found.values() if each is not None], sorted(gone)
        )

    def _correct(self, record: Record, sidecars: Sidecars, stored: set[str], known: set[str]) -> None:
        found = [each for each in sidecars.read().values() if each is not None]
        made = [each.point() for each in found if each.id not in known]
        self._core.restore_points.put(record.uuid, made, sorted(known - stored))
        log.info("the index of restore points was corrected", extra={"uuid": record.uuid, "added": len(made)})

    def _note_newest(self, record: Record) -> None:
        """Name the newest point in a record that names none: it was made again after Redis was lost. `point_at` stays
        0, as the files may have changed since."""
        newest = None if record.point else self._core.restore_points.newest(record.uuid)
        if newest is not None:
            # A newer one is named, or the session is gone.
            with suppress(Superseded, SessionNotFound):
                self._core.store.change(record.uuid, self._clock(), expect={"point": ""}, point=newest.id)
