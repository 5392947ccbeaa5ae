"""RPCs of the web process, which waits for the reply: see `app.core.redis.rpc`. Nothing is done for a caller that has
left, so a task that runs late or twice is harmless."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from app.core.backups.backup_access import Direct
from app.core.composition import Core
from app.core.errors import SessionError, StateUnavailable
from app.core.operations.verdicts import NO_ARCHIVE
from app.process.private_text import without_private

if TYPE_CHECKING:
    from workers.runtime.kubernetes.download_job import DownloadJobs

log = logging.getLogger(__name__)


def read(core: Core, download_jobs: DownloadJobs, name: str, call: str) -> None:
    """Start a download job for a backup; the reply holds its address and secret."""
    if not core.rpc.wanted(call):
        return
    try:
        running = download_jobs.start(name)
    except StateUnavailable:
        raise
    except SessionError as error:
        log.warning("the download job of %s was not started: %s", name, error)
        core.rpc.refuse(call, error)
        return
    if not core.rpc.answer(call, running.answer):
        download_jobs.end(running)


def delete(core: Core, name: str, call: str) -> None:
    """Delete a backup and its index entry, unless a session needs it."""
    if not core.rpc.wanted(call):
        return
    try:
        Direct(core.backup_store, core.backups).delete(name)
    except StateUnavailable:
        raise
    except SessionError as error:
        core.rpc.refuse(call, error)
        return
    core.rpc.answer(call, {})


def check_stores(core: Core, call: str) -> None:
    """Write, read and delete a file in each store; the reply says for each what is wrong, "" for nothing, and whether
    there is no archive key."""
    if not core.rpc.wanted(call):
        return
    answer = {}
    for name, store in (("backups", core.backup_store), ("conversations", core.history_store)):
        try:
            store.check()
        except StateUnavailable:
            raise
        except SessionError as error:
            log.warning("the store of %s can't be used: %s", name, error)
            answer[name] = without_private(str(error))
        else:
            answer[name] = ""
    if not core.settings.archive_key:
        answer[NO_ARCHIVE] = ""
    core.rpc.answer(call, answer)
