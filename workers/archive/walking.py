"""Going through a workspace's files while they change, without being led astray.

No link is ever followed, and a FIFO put in a file's place can't block. What can't be looked at is told to the
caller, who knows what that means.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from workers.archive.format import open_below
from workers.runtime.base import Check

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

VANISHED = (FileNotFoundError, NotADirectoryError)


class Replaced(Exception):
    """Something else stands where a file or link was a moment ago."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing: `name` in the folder with the descriptor `folder`, which is open until the next is asked for; `path`
    is relative to the root."""

    folder: int
    name: str
    path: str
    info: os.stat_result


def walk(root: int, missed: Callable[[str, OSError], None], check: Check) -> Iterator[Found]:
    """Everything under the folder with the descriptor `root`, a folder before what is in it, names in order. What
    can't be looked at is passed over, once `missed` was told its path ("" of the root) and why."""
    pending = [""]
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


def _inside(folder: int, path: str, missed: Callable[[str, OSError], None], check: Check) -> Iterator[Found]:
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
    """A regular file, for reading; `Replaced` when it is none any more."""
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
