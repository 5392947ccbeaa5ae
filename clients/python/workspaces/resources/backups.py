"""Backups: make, list, restore, download, delete. They outlive their sessions."""

from __future__ import annotations

from pathlib import Path

from workspaces.downloads import Download
from workspaces.models import Action, Backup, BackupList, CreatedSession
from workspaces.pages import Pages
from workspaces.resources.base import Resource, given, operation, path

ZIP = "application/zip"


class Backups(Resource):
    """The calls on backups."""

    @operation("backUpSession")
    def create(self, uuid: str, *, wait: float | None = None, idempotency_key: str | None = None) -> Action:
        """Back a session up while it goes on; a `BackupEvent` reports the end. Its `status` is `done` if the backup was
        made within `wait`; raises `BackupFailed` if it failed by then."""
        return self._post(Action, path("session", uuid, "backup"), wait=wait, idempotency_key=idempotency_key)

    @operation("listBackups")
    def list(
        self,
        *,
        user_id: str | None = None,
        uuid: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Pages[BackupList, Backup]:
        """All backups, newest first. `limit` is of one page."""

        def fetch(cursor: str | None) -> BackupList:
            query = {"user_id": user_id, "uuid": uuid, "limit": limit, "cursor": cursor}
            return self._get(BackupList, "/backups", query=query)

        return Pages(fetch, lambda page: page.backups, cursor)

    @operation("listSessionBackups")
    def list_of_session(
        self, uuid: str, *, limit: int | None = None, cursor: str | None = None
    ) -> Pages[BackupList, Backup]:
        """One session's backups, newest first, also after its deletion."""

        def fetch(cursor: str | None) -> BackupList:
            query = {"limit": limit, "cursor": cursor}
            return self._get(BackupList, path("session", uuid, "backups"), query=query)

        return Pages(fetch, lambda page: page.backups, cursor)

    @operation("restoreBackup")
    def restore(
        self,
        name: str,
        *,
        user_id: str | None = None,
        wait: float | None = None,
        idempotency_key: str | None = None,
    ) -> CreatedSession:
        """Create a session with the files of a backup, for the same user or another."""
        return self._post(
            CreatedSession,
            path("backups", name, "restore"),
            body=given(user_id=user_id),
            wait=wait,
            idempotency_key=idempotency_key,
        )

    @operation("downloadBackup", ZIP)
    def download(self, name: str, to: Path | str = ".") -> Path:
        """Download a backup's zip `to` a file or into a folder, and check it; answers where it is. A download that
        breaks off is resumed. Raises `DownloadDamaged`, and leaves nothing unless the file is whole."""
        target = Path(to)
        if target.is_dir():
            target /= Path(name).name
        return Download(self._http, path("backups", name, "download"), ZIP).save(target)

    @operation("deleteBackup", "")
    def delete(self, name: str) -> None:
        """Delete a backup; raises `BackupInUse` while a session is still to be restored from it."""
        self._http.text("DELETE", path("backups", name))
