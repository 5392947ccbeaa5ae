"""Backups: make, list, restore, download, delete. They outlive their sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from workspaces.downloads import Download
from workspaces.errors import StateConflict
from workspaces.events import BackupEvent, Event, ends_session, typed
from workspaces.models import Action, Backup, BackupList, CreatedSession
from workspaces.pages import Pages
from workspaces.resources.base import Resource, given, operation, path
from workspaces.sse import Stream, follow

ZIP = "application/zip"


class Backups(Resource):
    """The calls on backups."""

    @operation("backUpSession")
    def create(self, uuid: str, *, wait: float | None = None, idempotency_key: str | None = None) -> Action:
        """Back a session up while it goes on; a `BackupEvent` reports the end. Its `status` is `done` if the backup was
        made within `wait`; raises `BackupFailed` if it failed by then."""
        return self._post(Action, path("session", uuid, "backup"), wait=wait, idempotency_key=idempotency_key)

    def make(
        self, uuid: str, *, timeout: float = 600.0, on_event: Callable[[Event], None] | None = None
    ) -> BackupEvent:
        """Back a session up while it goes on, and wait for the end: `done` with the backup's name, or `failed` with a
        reason. `on_event` is shown all that happens in the session meanwhile. Raises `WaitTimedOut` after `timeout`
        seconds, the backup then goes on, and `StateConflict` if the session ends before."""
        deadline, events = time.monotonic() + timeout, path("session", uuid, "events")
        with Stream(follow(self._http, events, None)) as present:
            before = next(present).id
        self.create(uuid, wait=0)
        for raw in follow(self._http, events, before, deadline):
            event = typed(raw)
            if on_event is not None:
                on_event(event)
            if isinstance(event, BackupEvent):
                return event
            if ends_session(event):
                break
        raise StateConflict(f"Session {uuid} ended before its backup.", code="illegal_state")

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
