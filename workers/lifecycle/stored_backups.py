"""Puts the backups that the store has and the index lacks into the index."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from app.core.backups.index import Backup
from app.core.backups.store import session_of
from app.core.composition import Core
from app.core.errors import ArchiveError, BackupNotFound, BackupRetired

log = logging.getLogger(__name__)


class StoredBackups:
    """The stored backups. Says once of each that is damaged that it is left out."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._skipped: set[str] = set()

    def index(self, names: Iterable[str]) -> None:
        """Put those of these stored backups into the index that it lacks. Raises `StateUnavailable`, and as
        `BackupStore`."""
        for name in self._core.backups.unknown(list(names)):
            try:
                self._add(name)
            except (ArchiveError, BackupNotFound, BackupRetired) as error:
                if name not in self._skipped:
                    log.warning("a backup was not indexed: %s", error)
                    self._skipped.add(name)

    def _add(self, name: str) -> None:
        self._core.backups.add(self._described(name))
        # It may have been deleted meanwhile.
        if not self._core.backup_store.exists(name):
            self._core.backups.delete(name)

    def _described(self, name: str) -> Backup:
        """The stored backup as its sidecar describes it. That was written by a Job of its session, so it is believed
        for that session and its user only."""
        backup = Backup.from_sidecar(self._core.backup_store.sidecar(name))
        users = {record.user_id for record in self._core.store.find([backup.uuid])} | {backup.origin.user_id}
        if {backup.uuid, backup.origin.uuid} != {session_of(name)} or users != {backup.user_id}:
            raise ArchiveError(f"The sidecar of {name} names another session or user than it is of.")
        return backup
