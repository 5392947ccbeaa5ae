"""What a backup is made of: the project's folder, and the conversation beside it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from workers.archive.format import CONVERSATION, FOLDER_FLAGS, folder_below
from workers.archive.walking import Found, Missed, walk
from workers.runtime.base import Check


@dataclass(frozen=True)
class Source:
    """The open folders: of the project, and of the volume around it."""

    project: int
    volume: int

    def walk(self, missed: Missed, check: Check) -> Iterator[Found]:
        """Everything to back up, as `walking.walk`. Of the conversation, files and folders only."""
        yield from walk(self.project, missed, check)
        if _has_conversation(self.volume):
            for found in walk(self.volume, missed, check, CONVERSATION):
                if not stat.S_ISLNK(found.info.st_mode):
                    yield replace(found, own=False)


@contextmanager
def opened(root: Path) -> Iterator[Source]:
    """Open the project's folder `root` and the folder around it. Raises `OSError`."""
    project = os.open(root, FOLDER_FLAGS)
    try:
        volume = os.open(root.parent, FOLDER_FLAGS)
        try:
            yield Source(project, volume)
        finally:
            os.close(volume)
    finally:
        os.close(project)


def _has_conversation(volume: int) -> bool:
    """Whether there is a folder of the conversation. One that may not be opened counts: the walk reports it."""
    try:
        with folder_below(volume, CONVERSATION):
            return True
    except PermissionError:
        return True
    except OSError:
        return False
