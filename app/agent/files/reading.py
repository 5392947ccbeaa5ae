"""Listing and reading a workspace's files for callers."""

from __future__ import annotations

import contextlib
import fnmatch
import heapq
import os
import stat
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

from app.agent.files.entries import Entry, entry_of, grew_from
from app.agent.files.faults import FileError, resolved
from app.agent.protocol import FileFault
from app.agent.tools.sandbox_path import SandboxPath, Workspace

LISTING_SECONDS = 3.0
"""Of one page, however little of a large tree matches; the next one goes on."""

LISTING_BYTES = 262_144
"""Of the paths in one page: a path may have 25,000."""

NAMES = 10_000
"""Of one folder held at a time; it may have millions."""


class Listing(NamedTuple):
    """A page of entries. `after` is the path of the last one looked at, "" at the end."""

    path: str
    entries: Sequence[Entry]
    after: str


def listing(workspace: Workspace, path: str, depth: int, glob: str, most: int, after: str) -> Listing:
    """What is in a folder, so many levels deep, of names or paths below it like `glob` if given; with depth 0, or for
    what is no folder, the entry itself. At most so many entries, those after the path `after`. Raises FileError."""
    with resolved(workspace, path, follow=depth > 0) as place:
        status = existing(place, path)
        if not depth or not stat.S_ISDIR(status.st_mode):
            return Listing(place.path, [entry_of(place.path, place.name, place.folder)], "")
        prefix = "" if place.is_root else f"{place.path}/"
        if after and not after.startswith(prefix):
            raise FileError(FileFault.INVALID_PATH, "the cursor is none of this folder's")
        folder = place.open(os.O_RDONLY | os.O_DIRECTORY)
        try:
            seen = after[len(prefix) :]
            with contextlib.closing(_walk(folder, prefix, depth, seen.split("/") if seen else ())) as found:
                return _page(place.path, prefix, found, glob, most)
        finally:
            os.close(folder)


def _page(path: str, prefix: str, found: Iterable[Entry], glob: str, most: int) -> Listing:
    deadline = time.monotonic() + LISTING_SECONDS
    entries: list[Entry] = []
    size = 0
    for entry in found:
        below = entry.path[len(prefix) :]
        if is_like(below, glob):
            entries.append(entry)
            size += len(entry.path) + len(entry.target)
        if len(entries) == most or size > LISTING_BYTES or time.monotonic() > deadline:
            return Listing(path, entries, entry.path)
    return Listing(path, entries, "")


def is_like(below: str, glob: str) -> bool:
    """Whether a path below the folder that is meant, or its name, is like the glob; all are like ""."""
    return not glob or fnmatch.fnmatchcase(below, glob) or fnmatch.fnmatchcase(below.rpartition("/")[2], glob)


def _walk(folder: int, prefix: str, depth: int, seen: Sequence[str]) -> Generator[Entry, None, None]:
    """The entries of a folder by name, each folder's own right after it; those after the path of the names `seen`."""
    for name in names(folder, seen[0] if seen else ""):
        at_seen = bool(seen) and name == seen[0]
        try:
            entry = entry_of(prefix + name, name, folder)
        except FileNotFoundError:
            continue
        if not at_seen:
            yield entry
        if depth > 1 and stat.S_ISDIR(entry.status.st_mode):
            with contextlib.suppress(OSError):  # It is gone, or not to be read, which its mode says.
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                try:
                    yield from _walk(below, f"{entry.path}/", depth - 1, seen[1:] if at_seen else ())
                finally:
                    os.close(below)


def names(folder: int, first: str) -> Iterator[str]:
    """The names in a folder in their order, from `first` on."""
    last: str | None = None
    while True:
        with os.scandir(folder) as scan:
            after = (each.name for each in scan if each.name >= first and (last is None or each.name > last))
            names = heapq.nsmallest(NAMES, after)
        yield from names
        if len(names) < NAMES:
            return
        last = names[-1]


def entry(workspace: Workspace, path: str) -> Entry:
    """The file at a path, or at the end of the links there. Raises FileError, also for what is no file."""
    with resolved(workspace, path) as place:
        status = existing(place, path)
        _check_regular(status, path)
        return Entry(place.path, status)


def read(workspace: Workspace, path: str, etag: str, offset: int, most: int) -> bytes:
    """Bytes of a file that had this etag, or has grown since. Raises FileError."""
    with resolved(workspace, path) as place:
        file = place.open(os.O_RDONLY)
        try:
            status = os.fstat(file)
            _check_regular(status, path)
            if not grew_from(status, etag):
                raise FileError(FileFault.FILE_CHANGED, f"{path} changed while it was read")
            return os.pread(file, most, offset)
        finally:
            os.close(file)


def existing(place: SandboxPath, path: str) -> os.stat_result:
    status = place.status()
    if status is None:
        raise FileError(FileFault.FILE_NOT_FOUND, f"{path}: no such file or folder")
    return status


def _check_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise FileError(FileFault.NOT_A_FILE, f"{path} is {what}")
