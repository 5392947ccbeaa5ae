"""Carries out erasures: deletes all that the stores and Redis have of a terminated session.

Every step may be repeated, and the erasure stays requested until the last one is done (app/core/erasures.py); the stale
sweep sends it again. The backups leave the index before the ledger gets the pseudonym, as their cost is the user's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from app.core.backups.backup_access import Direct
from app.core.composition import Core
from app.core.erasures import pseudonym_of
from app.core.errors import BackupInUse, RetryableError
from app.core.redis import keys
from app.core.sessions.model import Status
from app.core.storage.file_store import FileStore
from workers.restore_points.alone import alone
from workers.runtime.base import Runtime, never

log = logging.getLogger(__name__)

AT_ONCE = 500


class Erasing:
    """Erases sessions. Times are seconds since the epoch."""

    def __init__(self, core: Core, runtime: Runtime, clock: Callable[[], float] = time.time) -> None:
        self._core = core
        self._runtime = runtime
        self._clock = clock

    def erase(self, uuid: str) -> None:
        """Carry out the session's erasure, if one is requested. Raises `RetryableError` when it can't be done now."""
        # What writes backups and restore points holds this lease.
        with self._core.leases.hold(keys.BACKUP_LEASE.format(uuid=uuid)) as free:
            if not free or not self._core.erasures.pending(uuid):
                return
            record = next(iter(self._core.store.find([uuid])), None)
            if record is not None and record.status is not Status.TERMINATED:
                self._core.erasures.drop(uuid)
                return
            if self._runtime.observe(uuid) is not None:
                raise RetryableError(f"The workspace {uuid} exists, but its record was lost: that is made again first.")
            self._delete_backups(uuid)
            self._core.history_store.delete(uuid)
            self._core.feed.forget(uuid)
            self._rewrite_audit(uuid)
            self._core.erasures.finish(uuid, pseudonym_of(uuid), self._clock())
            log.info("a session is erased", extra={"uuid": uuid})

    def _delete_backups(self, uuid: str) -> None:
        backups, files = self._core.backups, self._core.backup_store
        indexed = [backup.name for backup in backups.page(uuid=uuid, limit=AT_ONCE).items]
        for name in {*indexed, *files.names_of(uuid)}:
            try:
                Direct(files, backups, self._clock).delete(name)
            except BackupInUse as error:
                raise RetryableError(str(error)) from error
            files.delete(name)
        if len(indexed) == AT_ONCE:
            raise RetryableError(f"Session {uuid} has more backups to delete.")
        _delete_rest(files.files, uuid)

    def _rewrite_audit(self, uuid: str) -> None:
        with self._core.leases.hold(keys.AUDIT_LEASE) as free:
            if not free:
                raise RetryableError("The audit is being rewritten for another erasure.")
            self._core.audit.pseudonymise(uuid, pseudonym_of(uuid))


def _delete_rest(files: FileStore, uuid: str) -> None:
    """Delete the session's folder in the store of backups."""
    with files.translated(f"The backup store could not erase {uuid}"):
        if uuid in files.names(files.root):
            # A worker that lost its lease may still be writing a restore point.
            with alone(files, uuid, never):
                files.remove_folder(f"{files.root}/{uuid}")
        files.sync(files.root)
