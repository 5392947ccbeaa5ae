"""Puts a folder back to an undo point in two steps, of which the first changes nothing.

`stage` compares, and writes what must come back beside the folder: `staged/{n}` and, last, the plan. A full disk is
found here. `swap` carries out the plan by renames and removals; killed anywhere, it is repeated and completes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

from app.agent.undo.saving import NoRoom
from app.agent.undo.store import PIECE, Entry, Store
from app.agent.undo.tree import FILE, FOLDER, LINK, Found, lines, parse
from app.volume.deletion import delete

STAGED, PLAN = "staged", "plan.json"

SPARE_BYTES = 16 * 1024 * 1024
"""Free room beyond the files that come back: for names and the journal."""


class NoPoint(Exception):
    """The prompt has no undo point, or there is no plan to carry out."""


class Plan(NamedTuple):
    """What to do, by path: remove; make folders; move staged entries there; set modes and times. `folders` has the
    modes of all folders. `files` counts changed files and links; `lost` those whose content is not stored."""

    message_id: str
    remove: list[str]
    make: list[str]
    put: dict[str, int]
    touch: dict[str, tuple[int, int]]
    folders: dict[str, int]
    files: int
    lost: int


def stage(root: Path, store: Store, beside: Path, message_id: str) -> Plan:
    """Write the plan for a prompt's point and what it needs. Raises NoPoint, NoRoom, TooMany, OSError and
    sqlite3.Error."""
    point = store.point(message_id)
    if point is None:
        raise NoPoint
    discard(beside)
    wanted, now = store.at(point), {each.path: each for each in map(parse, lines(root))}
    left = [path + b"/" for path, entry in wanted.items() if entry.kept]
    extra = [path for path in now if path not in wanted and not path.startswith(tuple(left))]
    gone = set(extra)
    remove = [path for path in extra if os.path.dirname(path) not in gone]
    changed = [
        (entry, found)
        for path, entry in wanted.items()
        if not entry.kept and ((found := now.get(path)) is None or not entry.same(found))
    ]
    place = beside / STAGED
    place.mkdir(mode=0o700)
    put, touch = _staged(root, store, place, changed)
    plan = Plan(
        message_id,
        [os.fsdecode(path) for path in remove],
        sorted(os.fsdecode(e.path) for e, f in changed if e.kind == FOLDER and (f is None or f.kind != FOLDER)),
        put,
        touch,
        {os.fsdecode(path): entry.mode for path, entry in wanted.items() if entry.kind == FOLDER and not entry.kept},
        sum(now[path].kind != FOLDER for path in extra) + len(put) + len(touch),
        sum(bool(entry.kept) and path not in now for path, entry in wanted.items()),
    )
    draft = place / f".{PLAN}"
    draft.write_text(json.dumps(plan._asdict()))
    draft.rename(place / PLAN)
    return plan


def _staged(
    root: Path, store: Store, place: Path, changed: list[tuple[Entry, Found | None]]
) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Write the changed files and links into a folder: their numbers by path, and the modes and times of those whose
    content is right."""
    put, touch = {}, {}
    for entry, found in changed:
        path = os.fsdecode(entry.path)
        if entry.kind == LINK:
            if found is None or found.kind != LINK or os.readlink(root / path) != os.fsdecode(entry.target or b""):
                os.symlink(entry.target or b"", os.fsencode(place / str(entry.id)))
                put[path] = entry.id
        elif entry.kind == FILE and entry.content is not None:
            if found is not None and found.kind == FILE and _has(root / path, found, store, entry):
                if (found.mode, found.mtime) != (entry.mode, entry.mtime):
                    touch[path] = (entry.mode, entry.mtime)
                continue
            volume = os.statvfs(place)
            if volume.f_bavail * volume.f_frsize < entry.size + SPARE_BYTES:
                raise NoRoom("the volume has too little room for the files that come back")
            _write(place / str(entry.id), store, entry)
            put[path] = entry.id
    return put, touch


def _has(path: Path, found: Found, store: Store, entry: Entry) -> bool:
    """Whether the file has this version's content."""
    assert entry.content is not None
    if found.size != entry.size:
        return False
    digest = hashlib.blake2b(digest_size=32)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb", 0) as file:
            while data := file.read(PIECE):
                digest.update(data)
    except OSError:
        return False
    return digest.digest() == store.digest_of(entry.content)


def _write(path: Path, store: Store, entry: Entry) -> None:
    assert entry.content is not None
    with open(path, "xb") as file:
        for piece in store.pieces(entry.content):
            if isinstance(piece, bytes):
                file.write(piece)
            else:
                file.seek(piece, os.SEEK_CUR)
        file.truncate()
        os.fchmod(file.fileno(), entry.mode)
    os.utime(path, ns=(entry.mtime, entry.mtime))


def swap(root: Path, beside: Path, message_id: str) -> Plan:
    """Carry out the plan for this prompt, or what is left of it. Raises NoPoint, OSError."""
    plan = _read_plan(beside)
    if plan.message_id != message_id:
        raise NoPoint
    place, base = beside / STAGED, os.fspath(root)
    for path in plan.remove:
        _remove(os.path.join(base, path))
    for path in plan.make:
        whole = os.path.join(base, path)
        if not _is_folder(whole):
            _remove(whole)
            _writable(os.path.dirname(whole))
            os.mkdir(whole, 0o700)
    for path, number in plan.put.items():
        whole, staged = os.path.join(base, path), place / str(number)
        if not os.path.lexists(staged):
            continue  # It was put there before this was killed.
        if _is_folder(whole):
            _remove(whole)
        _writable(os.path.dirname(whole))
        os.rename(staged, whole)
    for path, (mode, mtime) in plan.touch.items():
        whole = os.path.join(base, path)
        if os.path.isfile(whole) and not os.path.islink(whole):
            os.chmod(whole, mode)
            os.utime(whole, ns=(mtime, mtime))
    for path, mode in sorted(plan.folders.items(), reverse=True):
        whole = os.path.join(base, path)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_IMODE(os.lstat(whole).st_mode) != mode and _is_folder(whole):
                os.chmod(whole, mode)
    return plan


def discard(beside: Path) -> None:
    """Delete what an earlier restore left."""
    if (beside / STAGED).exists():
        delete(beside / STAGED, forced=True)


def _read_plan(beside: Path) -> Plan:
    try:
        document: dict[str, Any] = json.loads((beside / STAGED / PLAN).read_text())
        return Plan(**document)
    except (FileNotFoundError, ValueError, TypeError):
        raise NoPoint from None


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _remove(path: str) -> None:
    """Delete whatever is there, also folders that a prompt made unwritable."""
    if not _is_folder(path):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            _writable(os.path.dirname(path))
            os.unlink(path)
        return
    _writable(os.path.dirname(path))
    delete(path, forced=True)


def _writable(folder: str) -> None:
    """Let its owner change a folder; its mode is set at the end."""
    mode = os.lstat(folder).st_mode
    if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
        os.chmod(folder, stat.S_IMODE(mode) | 0o700)
