"""Moves the conversation out of the workspace's folder, where agents of earlier releases kept it."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path

from app.agent.disk import sync_folder
from app.agent.settings import STATE_FOLDER

log = logging.getLogger(__name__)

WRITTEN_FIRST = ("metadata.json", "history.json")


def move_conversation(workspace: Path, to: Path) -> None:
    """Move the conversation in the workspace's folder to the folder `to`, unless one is there. Raises `OSError`.

    The move is one rename, so a crash leaves it here or there. One that is there stays: what is in the workspace's
    folder then came from elsewhere, as with a repository that has such a folder, and must not replace it.
    """
    old = workspace / STATE_FOLDER
    if not _is_conversation(old):
        return
    try:
        os.rename(old, to)
    except OSError as e:
        if e.errno in (errno.ENOTEMPTY, errno.EEXIST):
            log.warning("The folder %s in the workspace is left alone: there is a conversation", STATE_FOLDER)
            return
        raise
    sync_folder(to.parent)
    sync_folder(workspace)
    log.info("The conversation was moved out of the workspace's folder")


def _is_conversation(folder: Path) -> bool:
    """Whether the agent may have made this folder: a real one, with one of its files."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return False
    except FileNotFoundError:
        return False
    return any(os.path.lexists(folder / name) for name in WRITTEN_FIRST)
