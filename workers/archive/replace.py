"""Replaces folders of a workspace (its project, its conversation) together: all or none, wherever it is killed.

In the folder around the project:

    .restoring-*/new/{app,.session}    is being written, and does not count
    .replacing-*/new/{app,.session}    is complete: whoever finds it completes the replacement
    .replacing-*/old/*/                what was replaced
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.errors import RetryableError
from workers.archive.format import FOLDER_FLAGS
from workers.rmtree import delete_tree

log = logging.getLogger(__name__)

DRAFT, COMPLETE = ".restoring-", ".replacing-"
NEW, OLD = "new", "old"


@contextmanager
def draft(place: Path) -> Iterator[Path]:
    """A folder in `place` (the folder around the project) for the new folders; unless `put_in_place` takes them, they
    are deleted."""
    work = Path(tempfile.mkdtemp(prefix=DRAFT, dir=place))
    try:
        (work / NEW).mkdir()
        yield work / NEW
    finally:
        _discard(work)


def put_in_place(new: Path) -> None:
    """Put the folders in a draft, which are on the disk, in the place of those of their names. Raises `OSError`, and
    then nothing has changed."""
    work, names = new.parent, os.listdir(new)
    begun = work.with_name(COMPLETE + work.name.removeprefix(DRAFT))
    (work / OLD).mkdir()
    os.rename(work, begun)
    try:
        _sync(begun.parent)
        _exchange(begun)
    except OSError:
        _undo(begun, names)
        os.rename(begun, work)
        raise
    _discard(begun)


def interrupted(place: Path) -> list[Path]:
    """Replacements that were begun and not completed."""
    return sorted(work for work in place.glob(COMPLETE + "*") if any((work / NEW).glob("*")))


def complete(place: Path) -> None:
    """Complete what `interrupted` finds."""
    for work in interrupted(place):
        _exchange(work)
        _discard(work)


def clear(place: Path) -> None:
    """Delete what interrupted restores left: drafts, and what completed ones replaced."""
    unfinished = interrupted(place)
    for work in [*place.glob(DRAFT + "*"), *place.glob(COMPLETE + "*")]:
        if work not in unfinished:
            _discard(work)


def _discard(work: Path) -> None:
    """Delete a work folder; a failure does not fail the restore, and the next run tries again."""
    try:
        delete_tree(work)
    except RetryableError as error:
        log.warning("a leftover of a restore was not deleted: %s", error)


def _exchange(work: Path) -> None:
    """Exchange what is not exchanged yet: a folder that is no longer in `new` is in place."""
    for name in sorted(os.listdir(work / NEW)):
        target = work.parent / name
        if os.path.lexists(target):
            # In a folder of its own: an empty target may have been made again since the old one was taken away.
            os.rename(target, Path(tempfile.mkdtemp(dir=work / OLD)) / name)
        os.rename(work / NEW / name, target)
    _sync(work.parent)


def _undo(work: Path, names: Iterable[str]) -> None:
    for name in names:
        new, target = work / NEW / name, work.parent / name
        if not new.exists():
            os.rename(target, new)
        for old in (work / OLD).glob(f"*/{name}"):
            os.rename(old, target)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, FOLDER_FLAGS)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
