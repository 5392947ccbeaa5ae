"""What changed in a workspace's folder, for callers that show it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from app.agent.files.entries import Entry, entry_of
from app.agent.files.faults import FileError, resolved
from app.agent.files.journal import Change
from app.agent.files.reading import LISTING_BYTES, existing, is_like
from app.agent.files.watch import Watch
from app.agent.protocol import FileFault
from app.agent.tools.sandbox_path import Workspace
from app.agent.tools.searcher import SKIPPED_FOLDERS

TOLD_MOST = 1_000
"""Changes in an answer."""


class Changes(NamedTuple):
    """What changed at `path` and below it: the `entries` as they are now, and the paths where nothing is any more
    (`gone`). With `anew` nothing is told of what changed before: the caller is to look at all of it. `position` is
    where the next answer goes on; not `complete` if the workspace has more folders than are watched."""

    path: str
    position: str
    complete: bool
    anew: bool = False
    entries: Sequence[Entry] = ()
    gone: Sequence[str] = ()


class Changed:
    """The changes of a workspace, which is watched while somebody asks. Thread-safe. Raises FileError."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._watch: Watch | None = None

    def since(self, position: str, path: str, depth: int, glob: str, seconds: float) -> Changes:
        """What changed after the position, "" for none: at the path, and so many levels below it at names or paths like
        `glob`; as soon as there is something, or after so many seconds."""
        deadline = time.monotonic() + seconds
        base = self._base(path, known=bool(position))
        watch = self._watched()
        journal = watch.journal
        name, _, number = position.partition("-")
        last = int(number) if name == journal.name else -1
        while (changes := journal.since(last)) is not None:
            entries, gone, last = self._told(changes, base, depth, glob, last)
            left = deadline - time.monotonic()
            if entries or gone or left <= 0:
                return Changes(base, f"{journal.name}-{last}", watch.complete, False, entries, gone)
            journal.wait(last, left)
            watch.ask()
        return Changes(base, f"{journal.name}-{journal.last}", watch.complete, anew=True)

    def _base(self, path: str, *, known: bool) -> str:
        """The path, without links. One that was there before may come again."""
        try:
            with resolved(self._workspace, path) as place:
                existing(place, path)
                base = place.path
        except FileError as error:
            if error.fault is not FileFault.FILE_NOT_FOUND or not known:
                raise
            base = os.path.normpath(path)
        if not SKIPPED_FOLDERS.isdisjoint(base.split("/")):
            skipped = ", ".join(sorted(SKIPPED_FOLDERS))
            raise FileError(FileFault.INVALID_PATH, f"{path}: changes in {skipped} are not watched")
        return base

    def _watched(self) -> Watch:
        with self._lock:
            if self._watch is None or not self._watch.ask():
                try:
                    self._watch = Watch(self._workspace)
                except OSError as error:
                    raise FileError(FileFault.NOT_WATCHED, f"the kernel can't watch files: {error.strerror}") from None
            return self._watch

    def _told(
        self, changes: Sequence[Change], base: str, depth: int, glob: str, last: int
    ) -> tuple[Sequence[Entry], Sequence[str], int]:
        """What is told of these changes, and the last of them that it is about."""
        entries: list[Entry] = []
        gone: list[str] = []
        size = 0
        for change in changes:
            last = change.number
            path = _place(change, base, depth, glob)
            if path is None:
                continue
            entry = None if change.moved else self._entry(path)
            size += len(path)
            if entry is None:
                gone.append(path)
            else:
                entries.append(entry)
                size += len(entry.target)
            if len(entries) + len(gone) == TOLD_MOST or size > LISTING_BYTES:
                break
        return entries, gone, last

    def _entry(self, path: str) -> Entry | None:
        """What is at a path without links, None for nothing."""
        try:
            with resolved(self._workspace, path, follow=False) as place:
                return entry_of(path, place.name, place.folder) if place.path == path else None
        except FileError:
            return None


def _place(change: Change, base: str, depth: int, glob: str) -> str | None:
    """The path of which the change is told to whom `base` matters, None for none."""
    if change.path == base or (change.moved and _is_below(base, change.path)):
        return base
    if not _is_below(change.path, base):
        return None
    below = change.path if base == "." else change.path[len(base) + 1 :]
    if below.count("/") >= depth or not (change.moved or is_like(below, glob)):
        return None
    return change.path


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/") or (folder == "." and path != ".")
