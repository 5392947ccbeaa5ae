"""Makes an undo point: compares the folder with the newest state by status, and stores what differs."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from app.agent.undo.store import PIECE, Entry, Point, Store
from app.agent.undo.tree import FILE, LINK, Found, file_of, lines, parse, size_of

SETTLED = 100_000_000
"""ns. A file that changed less than this before it was read may change again without another time; it is read again."""

BATCH_BYTES = 64 * 1024 * 1024
"""New content between two commits, so that a save that is broken off has not worked for nothing."""

RESERVE_BYTES, RESERVE_SHARE = 256 * 1024 * 1024, 10
"""Of the volume this much, or this part of it if that is less, is left to the user."""

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL})
"""Errors of opening or reading what was a file or a link, and is one no more."""

READ = 65_536
"""Bytes asked for where a file may have ended."""

NAMED = 20
"""Files that are not stored, named in an answer."""


class Limits(NamedTuple):
    """The number of points, bytes of one file, bytes of all."""

    points: int
    file_bytes: int
    bytes: int


class NoRoom(Exception):
    """The store may not take so much; the text is for people."""


class Saved(NamedTuple):
    """`files` entries in the point, `changed` since the one before; `left_out` names files whose content is not
    stored, of which there are `left_out_count`."""

    files: int
    changed: int
    left_out: list[str]
    left_out_count: int


def save(root: Path, store: Store, message_id: str, now: float, limits: Limits) -> Saved | None:
    """Make the point of a prompt; None if it has one. Raises NoRoom, TooMany, OSError, sqlite3.Error."""
    if store.point(message_id) is not None:
        return None
    found, known = lines(root), store.statuses()
    before = {} if found == known else store.newest_but(found)
    changes = [(each, before.pop(each.path, None)) for each in map(parse, found - known)]
    _make_room(root, store, found, changes, limits)
    store.begin()
    number, pending = store.next_number(), 0
    for each, entry in changes:
        pending += _keep(root, store, number, each, entry, limits)
        if pending > BATCH_BYTES:
            store.commit()
            store.begin()
            pending = 0
    for entry in before.values():
        store.end(entry, number)
    store.add_point(Point(number, message_id, now, len(found)))
    store.drop(store.points()[limits.points :])
    store.commit()
    store.shrink()
    kept = store.kept()
    names = [path.decode("utf-8", "backslashreplace") for path in kept[:NAMED]]
    return Saved(len(found), len(changes) + len(before), names, len(kept))


def _make_room(
    root: Path,
    store: Store,
    found: Set[bytes],
    changes: Sequence[tuple[Found, Entry | None]],
    limits: Limits,
) -> None:
    """Drop old points until what is new fits. Raises NoRoom."""

    def kept(sizes: Iterable[int]) -> int:
        return sum(size for size in sizes if size <= limits.file_bytes)

    new = kept(each.size for each, _ in changes)
    if changes and (whole := kept(map(size_of, found))) > limits.bytes:
        raise NoRoom(f"the project's files have {whole} bytes, more than the {limits.bytes} that are kept of them")
    volume = os.statvfs(root)
    reserve = min(RESERVE_BYTES, volume.f_blocks * volume.f_frsize // RESERVE_SHARE)
    points = store.points()
    while True:
        volume = os.statvfs(root)
        fits = volume.f_bavail * volume.f_frsize - new >= reserve
        if fits and (not points or store.used() + new <= limits.bytes):
            return
        if not points:
            raise NoRoom(f"the volume has too little room for {new} more bytes")
        store.begin()
        store.drop([points.pop()])
        store.commit()
        store.shrink()


def _keep(root: Path, store: Store, number: int, each: Found, before: Entry | None, limits: Limits) -> int:
    """Store a version; bytes of new content."""
    path = os.path.join(os.fsencode(root), each.path)
    kept, content, target, stored = each.unreadable or each.size > limits.file_bytes, None, None, 0
    try:
        if each.kind == LINK:
            target = os.readlink(path)
        elif each.kind == FILE and not kept:
            each, content, stored = _content(store, each, path, limits)
    except OSError as e:
        if e.errno in GONE:
            if before is not None:
                store.end(before, number)
            return 0
        kept = True
    if before is not None:
        version = (each.kind, each.mode, each.size, each.mtime, kept, content, target)
        if version == (*before[2:6], before.kept, before.content, before.target):
            store.refresh(before, each)
            return 0
        store.end(before, number)
    store.add(number, each, content, target, kept)
    return stored


def _content(store: Store, each: Found, path: bytes, limits: Limits) -> tuple[Found, int, int]:
    """Store a file's content unless it is there: its status now, the content, bytes added."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb", 0) as file:
        begun = file_of(each.path, os.fstat(file.fileno()))
        if begun is None:
            raise FileNotFoundError(errno.ENOENT, "it is no file any more")
        digest, content, size = hashlib.blake2b(digest_size=32), 0, 0
        first = _read(file.fileno(), begun.size)
        if len(first) < PIECE:
            digest.update(first)
            known = store.content_of(digest.digest())
            if known is not None:
                return _settled(begun, os.fstat(file.fileno()), len(first)), known, 0
        content, data, n = store.new_content(), first, 0
        while data and size <= limits.file_bytes:
            if len(first) == PIECE:
                digest.update(data)
            store.add_piece(content, n, data)
            size, n = size + len(data), n + 1
            data = _read(file.fileno(), begun.size - size) if len(data) == PIECE else b""
        ended = _settled(begun, os.fstat(file.fileno()), size)
    if size > limits.file_bytes:
        store.remove_content(content)
        raise OSError(errno.EFBIG, "it grew while it was read")
    known = store.content_of(digest.digest())
    if known is not None:
        store.remove_content(content)
        return ended, known, 0
    store.set_digest(content, digest.digest())
    return ended, content, size


def _read(fd: int, left: int) -> bytes:
    """The next piece: shorter only at the end of the file, of which so many bytes are `left` if it didn't change. To
    ask for more than there is would cost a small file more time than all else."""
    data = os.read(fd, max(1, min(PIECE, left + 1)))
    while 0 < len(data) < PIECE and (more := os.read(fd, min(PIECE - len(data), READ))):
        data += more
    return data


def _settled(begun: Found, status: os.stat_result, size: int) -> Found:
    """The status to note: one that matches nothing if the file changed meanwhile, or only just before."""
    unchanged = file_of(begun.path, status) == begun and size == begun.size
    if unchanged and time.time_ns() - status.st_ctime_ns > SETTLED:
        return begun
    return begun._replace(size=size, status=b"")
