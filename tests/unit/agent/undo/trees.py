"""Trees of files of all kinds, random changes to them, and all that is to be the same after an undo."""

from __future__ import annotations

import os
import random
import shutil
import stat
from contextlib import closing
from pathlib import Path

from app.agent.undo.restoring import Plan, stage, swap
from app.agent.undo.saving import Limits, Saved, save
from app.agent.undo.store import Store

LIMITS = Limits(20, 3_000_000, 1 << 30)
NAMES = (b"a", b"b.txt", b".hidden", "é ü".encode(), b"\xff\xfe", b"new\nline", b"node_modules", b".git", b"x" * 200)


def state_of(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All below a folder: kind, mode, content or target, time of change of a file."""
    found: dict[bytes, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = (file.read(), status.st_mtime_ns)
            found[os.path.relpath(path, os.fsencode(root))] = (status.st_mode, content)
    return found


def folders_of(root: Path) -> list[bytes]:
    return [os.fsencode(root), *(f for f, _, _ in os.walk(os.fsencode(root)))]


def grow(root: Path, rnd: random.Random, count: int) -> None:
    """Add or replace so many things at random places."""
    for _ in range(count):
        path = os.path.join(rnd.choice(folders_of(root)), rnd.choice(NAMES))
        if len(path) - len(os.fsencode(root)) > 900:
            continue
        clear(path)
        match rnd.randrange(10):
            case 0 | 1 | 2:
                os.mkdir(path)
            case 3:
                os.symlink(rnd.choice([b"nowhere", b"../b.txt", b"/etc", b"."]), path)
            case 4:
                with open(path, "wb") as file:  # with a hole
                    file.write(rnd.randbytes(10))
                    file.seek(2_500_000)
                    file.write(b"end")
            case _:
                with open(path, "wb") as file:
                    file.write(rnd.randbytes(rnd.choice([0, 1, 100, 5_000])))
                os.chmod(path, rnd.choice([0o644, 0o755, 0o600, 0o444]))


def clear(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def change(root: Path, rnd: random.Random, count: int) -> None:
    """Random edits in place, removals, renames, modes, times, and new things."""
    for _ in range(count):
        everything = sorted(state_of(root))
        if not everything:
            break
        path = os.path.join(os.fsencode(root), rnd.choice(everything))
        is_file = os.path.isfile(path) and not os.path.islink(path)
        match rnd.randrange(6):
            case 0:
                clear(path)
            case 1 if is_file:
                with open(path, "r+b") as file:
                    file.write(b"edited in place")
            case 2 if not os.path.islink(path):
                os.chmod(path, rnd.choice([0o700, 0o755, 0o775]))
            case 3:
                target = os.path.join(rnd.choice(folders_of(root)), b"moved")
                if not target.startswith(path + b"/") and not os.path.lexists(target):
                    os.rename(path, target)
            case 4 if is_file:
                os.utime(path, (1, 1))
            case _:
                grow(root, rnd, 1)


def store_of(beside: Path) -> closing[Store]:
    return closing(Store(beside / "points.sqlite"))


def saved(root: Path, beside: Path, message_id: str, limits: Limits = LIMITS) -> Saved | None:
    """A point is made."""
    beside.mkdir(exist_ok=True)
    with store_of(beside) as store:
        return save(root, store, message_id, 1.0, limits)


def undone(root: Path, beside: Path, message_id: str) -> Plan:
    with store_of(beside) as store:
        stage(root, store, beside, message_id)
    return swap(root, beside, message_id)
