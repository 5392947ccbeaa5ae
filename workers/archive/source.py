"""What a backup is made of: the project's folder, and the conversation.

The conversation lies beside the project. An agent of an earlier release keeps it in the project, and its successor
moves it at its first start, maybe while a backup is made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from workers.archive.format import CONVERSATION, FOLDER_FLAGS, WRITTEN_FIRST, folder_below
from workers.archive.walking import Found, Missed, walk
from workers.rmtree import delete_tree
from workers.runtime.base import Check


@dataclass(frozen=True)
class Source:
    """The open folders: of the project, and of the volume around it."""

    project: int
    volume: int
    beside: bool
    """Whether the conversation lies beside the project."""
    within: bool
    """Whether the project's folder of that name is the conversation."""

    def walk(self, missed: Missed, check: Check) -> Iterator[Found]:
        """Everything to back up, as `walking.walk`. Of the conversation, files and folders only."""
        for found in walk(self.project, missed, check):
            yield replace(found, own=True) if not self.within and found.path.startswith(CONVERSATION) else found
        if self.beside:
            for found in walk(self.volume, missed, check, CONVERSATION):
                if not stat.S_ISLNK(found.info.st_mode):
                    yield found

    @property
    def around_conversation(self) -> int | None:
        """The folder that has the conversation, None when there is none."""
        return self.volume if self.beside else self.project if self.within else None

    def moved(self) -> bool:
        """Whether the agent has moved the conversation since."""
        return not self.beside and _has_content(self.volume)


@contextmanager
def opened(root: Path) -> Iterator[Source]:
    """Open the project's folder `root` and what is beside it. Raises `OSError`."""
    project = os.open(root, FOLDER_FLAGS)
    try:
        volume = os.open(root.parent, FOLDER_FLAGS)
        try:
            beside = _has_content(volume)
            yield Source(project, volume, beside, not beside and _is_conversation(project))
        finally:
            os.close(volume)
    finally:
        os.close(project)


def leave_out_conversation(project: Path) -> None:
    """Delete the conversation in a restored project's folder, where an agent of an earlier release had it."""
    folder = os.open(project, FOLDER_FLAGS)
    try:
        if _is_conversation(folder):
            delete_tree(project / CONVERSATION)
    finally:
        os.close(folder)


def _has_content(volume: int) -> bool:
    """Whether there is a conversation beside the project: the agent writes into the folder at once."""
    try:
        with folder_below(volume, CONVERSATION) as folder:
            return bool(os.listdir(folder))
    except PermissionError:
        return True  # the walk will tell
    except OSError:
        return False


def _is_conversation(project: int) -> bool:
    with suppress(OSError), folder_below(project, CONVERSATION) as folder:
        return not set(WRITTEN_FIRST).isdisjoint(os.listdir(folder))
    return False
