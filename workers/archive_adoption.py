"""After Redis was lost: makes the records of archived sessions again, from their markers in the store. Sessions with a
workspace have theirs from that (workers/sweeps.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from app.core.composition import Core
from app.core.errors import PermanentError
from app.core.sessions.model import UUID_PATTERN, Record, Status
from workers.archiving import Archive
from workers.restore_points.marker import Marker
from workers.runtime.base import Runtime

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

    def look(self) -> None:
        """Adopt what is archived and has neither record nor workspace. Raises `RetryableError`."""
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
                if marker.archived_at <= since:
                    adopted += self._adopt(marker)
        if adopted:
            log.warning("created the records of %d archived sessions that had none", adopted)

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
