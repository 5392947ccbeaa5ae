"""After Redis was lost: makes the records of archived sessions again, from their markers in the store. Sessions with a
workspace have theirs from that (workers/sweeps.py).

If the volumes are lost as well, an operator asks for a recovery: then each session that has restore points, and neither
record nor workspace, gets its record again, and lies in the archive. It is never done unasked, as volumes that are only
out of sight may hold newer files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from app.core.composition import Core
from app.core.errors import ArchiveError, PermanentError, RestorePointsOff
from app.core.redis import keys
from app.core.restore_points.recovery import Recovery
from app.core.sessions.change import Intervals
from app.core.sessions.model import UUID_PATTERN, Record, Status, iso
from app.core.storage.archive_keys import ArchiveKeys
from workers.lifecycle.archiving import Archive
from workers.restore_points.marker import Marker
from workers.restore_points.sidecar import Sidecars
from workers.runtime.base import Observation, Runtime

log = logging.getLogger(__name__)

AT_ONCE = 200
"""Markers read in one call, where the store can."""


class ArchiveAdoption:
    """Looks at the markers of sessions without a record. Times are seconds since the epoch."""

    def __init__(self, core: Core, runtime: Runtime, clock: Callable[[], float]) -> None:
        self._core = core
        self._runtime = runtime
        self._clock = clock
        self._archive = Archive(core)
        self._keys = ArchiveKeys(core.settings.archive_key)
        self._told: set[str] = set()

    def look(self) -> None:
        """Adopt what is archived and has neither record nor workspace. A marker that is older than a restore point was
        left when its session woke: that session's volume may be out of sight only. Raises `RetryableError`."""
        if not self._core.settings.archive_key:
            return
        unknown = self._unknown()
        if not unknown:
            return
        workspaces = {seen.identity.uuid for seen in self._runtime.observe_all()}
        since = self._core.store.remembers_since()
        adopted = 0
        for first in range(0, len(unknown), AT_ONCE):
            for marker in self._markers([each for each in unknown[first : first + AT_ONCE] if each not in workspaces]):
                # A later one was left by a deletion: this Redis knew its session.
                if marker.archived_at <= since and not self._is_stale(marker):
                    adopted += self._adopt(marker)
        if adopted:
            log.warning("created the records of %d archived sessions that had none", adopted)

    def recover(self, asked: Recovery) -> None:
        """Carry out a recovery that was asked for. Sessions of whose restore points none can be read are counted and
        left out. Raises `RestorePointsOff` and `RetryableError`; what is recovered by then stays so."""
        if not self._keys:
            raise RestorePointsOff
        workspaces = {seen.identity.uuid for seen in self._runtime.observe_all()}
        leaving = workspaces.union(self._core.restore_points.ending())
        whole = damaged = 0
        for uuid in self._unknown():
            if uuid in leaving:
                continue
            try:
                marker = self._newest(uuid)
            except ArchiveError as error:
                log.error("a session is not recovered: %s", error, extra={"uuid": uuid})
                damaged += 1
                continue
            if marker is not None:
                whole += 1
                if not asked.dry_run:
                    self._recover(uuid, marker)
        last = self._core.recoveries.last()
        found = whole if asked.dry_run or last is None else last.recovered
        self._core.recoveries.end(asked, self._clock(), found=found + damaged, damaged=damaged)

    def _recover(self, uuid: str, marker: Marker) -> None:
        # First, so that the session is found if Redis is lost once more.
        self._archive.markers(uuid).write(marker)
        if self._adopt(marker):
            self._core.recoveries.note_recovered()
            why = f"its restore point of {iso(marker.point.created_at)}"
            self._core.audit.note_own("recover", uuid, marker.identity.user_id, why)

    def _is_stale(self, marker: Marker) -> bool:
        """Whether the store has a newer restore point, or can't tell. It is logged once."""
        uuid = marker.identity.uuid
        try:
            points = Sidecars(self._core.backup_store.files, self._keys.session(uuid)).read().values()
        except PermanentError as error:
            log.error("an archived session is not brought back: %s", error, extra={"uuid": uuid})
            return True
        stale = any(each.created_at > marker.point.created_at for each in points if each is not None)
        if stale and uuid not in self._told:
            log.warning("not brought back: it has restore points that are newer than its marker", extra={"uuid": uuid})
            self._told.add(uuid)
        return stale

    def _newest(self, uuid: str) -> Marker | None:
        """The session's marker, or where its newest restore point is newer, one of that; None without any point."""
        sidecars = list(Sidecars(self._core.backup_store.files, self._keys.session(uuid)).read().values())
        if not sidecars:
            return None
        newest = next((each for each in sidecars if each is not None), None)
        if newest is None:
            raise ArchiveError("None of its restore points can be read.")
        kept = self._kept_marker(uuid)
        if kept and kept.point.created_at >= newest.created_at:
            return kept
        return Marker.of_lost(newest, self._clock())

    def _kept_marker(self, uuid: str) -> Marker | None:
        """The session's marker, None if there is none, or it is damaged."""
        try:
            return self._archive.markers(uuid).read()
        except ArchiveError as error:
            log.warning("the marker of an archived session can't be read: %s", error, extra={"uuid": uuid})
            return None

    def _unknown(self) -> list[str]:
        """The sessions that have a folder in the store, and no record."""
        files = self._core.backup_store.files
        with files.translated("The store of restore points can't be read"):
            uuids = [name for name in files.names(files.root) if UUID_PATTERN.fullmatch(name)]
        known = {record.uuid for record in self._core.store.find(uuids)}
        return sorted(set(uuids) - known)

    def _markers(self, uuids: list[str]) -> Iterator[Marker]:
        """The readable ones."""
        files = self._core.backup_store.files
        paths = {self._archive.markers(uuid).path: uuid for uuid in uuids}
        with files.translated("The store of restore points can't be read"):
            contents = files.read_all(list(paths))
        for path, content in contents.items():
            try:
                yield self._archive.markers(paths[path]).decrypted(content)
            except PermanentError as error:
                log.error("an archived session is not brought back: %s", error, extra={"uuid": paths[path]})

    def _adopt(self, marker: Marker) -> bool:
        """Make the record, which sleeps in the archive; whether there was none."""
        now = self._clock()
        record = Record(
            **vars(marker.identity),
            status=Status.SLEEPING,
            generation=marker.generation + 1,
            settled=marker.generation + 1,
            requested_at=now,
            last_activity=marker.last_activity,
            archived_at=marker.archived_at,
            files_of=marker.files_of,
            point=marker.point.id,
            point_at=marker.point.created_at,
            point_checked_at=marker.point.verified_at,
            made_by=marker.made_by,
            # It is unknown which tokens were revoked, so all earlier ones are.
            access_epoch=max(int(now), marker.access_epoch),
            epoch=marker.epoch + 1,
        )
        self._core.restore_points.put(record.uuid, [marker.point])
        return bool(self._core.store.create(record, quota=None))


def take_back(core: Core, record: Record, seen: Observation, now: float) -> Record | None:
    """Let a recovered session go on with its own volume, which was only out of sight and has newer files than its
    restore point; None where that is another session or volume. Raises `Superseded`, `SessionNotFound`."""
    if not (record.archived_at and record.files_of) or seen.identity.restore_from:
        return None
    taken = core.store.change(
        record.uuid,
        now,
        expect={"generation": record.generation, "archived_at": record.archived_at},
        restore_from="",
        provisioned=True,
        archived_at=0.0,
        files_of=0.0,
        # The agent's token is of this epoch.
        epoch=seen.epoch or record.epoch,
        ledger=costs_of(core, seen, now),
        event=("state", {"status": record.status, "reason": None, "reason_code": None}),
    ).record
    log.warning("a recovered session has its own volume again", extra={"uuid": record.uuid})
    core.audit.note_own("take_back", record.uuid, record.user_id, "its volume is there again")
    core.store.schedule_missing(keys.POINTS_DUE, [record.uuid], now)
    return taken


def costs_of(core: Core, seen: Observation, now: float) -> Intervals:
    """What a workspace costs whose record, and with it the ledger, was lost."""
    return Intervals(
        runs_from=(seen.began or now) if seen.running else 0.0,
        kept_from=seen.created_at or now,
        mib=core.prices.volume_mib,
    )
