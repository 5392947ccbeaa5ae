"""Walks through a workspace's files while they change.

No link is ever followed, and a FIFO in the place of a file cannot block. Entries that cannot be read are reported to
the caller.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from workers.archive.format import open_below, stored_name
from workers.runtime.base import Check

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

VANISHED = (FileNotFoundError, NotADirectoryError)


class Replaced(Exception):
    """A file or link was replaced by something else a moment ago."""


@dataclass(frozen=True, slots=True)
class Found:
    """An entry: `name` in the folder with the descriptor `folder`, which is open until the next is yielded; `path` is
    relative to the root. `own` says that a folder of the conversation's name is the project's own."""

    folder: int
    name: str
    path: str
    info: os.stat_result
    own: bool = True

    @property
    def stored(self) -> str:
        """Its name in the zip, for a folder without the slash at its end."""
        return stored_name(self.path, own=self.own)


Missed = Callable[[str, OSError], None]
"""Gets the path ("" for the root) and the error of what could not be read."""


def walk(root: int, missed: Missed, check: Check, start: str = "") -> Iterator[Found]:
    """Everything under the folder `start` below the one with the descriptor `root`, a folder before its content, names
    in order. What cannot be read is skipped, after `missed` was called for it."""
    pending = [start]
    while pending:
        path = pending.pop()
        try:
            folder = open_below(root, path)
        except OSError as error:
            missed(path, error)
            continue
        subfolders: list[str] = []
        try:
            for found in _inside(folder, path, missed, check):
                if stat.S_ISDIR(found.info.st_mode):
                    subfolders.append(found.path)
                yield found
        finally:
            os.close(folder)
        pending.extend(reversed(subfolders))


def _inside(folder: int, path: str, missed: Missed, check: Check) -> Iterator[Found]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        missed(path, error)
        return
    prefix = path + "/" if path else ""
    for name in names:
        check()
        try:
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            missed(prefix + name, error)
        else:
            yield Found(folder, name, prefix + name, info)


@contextmanager
def open_file(folder: int, name: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading; `Replaced` when it no longer is one."""
    try:
        file = os.open(name, FILE_FLAGS, dir_fd=folder)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        # A link (ELOOP) or a socket (ENXIO) took its place.
        raise Replaced from error
    with open(file, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise Replaced
        yield stream
