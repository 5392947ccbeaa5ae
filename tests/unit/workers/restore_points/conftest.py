"""A volume, a store, and restore points between them, made by the real restic."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from app.core.restore_points.names import new_id
from app.core.storage.archive_keys import ArchiveKeys, SessionKeys, new_key
from app.core.storage.file_store import FileStore
from workers.restore_points import make_point, restore_point
from workers.restore_points.sidecar import Sidecars
from workers.runtime.base import Check, PointOrder, PointSummary, RestoredPoint, never

UUID = "abcd1234"
LIMITS = (10**9, 10**6)
KEEP = (20, 24, 7, 4)


@dataclass
class Shelf:
    """One session's volume and its restore points. `made` holds what each point must bring back, by id."""

    volume: Path
    url: str
    keys: SessionKeys
    made: dict[str, str] = field(default_factory=dict)
    ticks: count[int] = field(default_factory=lambda: count(round(time.time())))

    @property
    def store(self) -> FileStore:
        return FileStore(self.url)

    @property
    def sidecars(self) -> Sidecars:
        return Sidecars(self.store, self.keys)

    @property
    def folder(self) -> Path:
        return Path(self.store.root) / UUID

    def write(self, path: str, content: bytes | str) -> None:
        """Put a file into the volume."""
        file = self.volume / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def order(self) -> PointOrder:
        """A point to make now."""
        return PointOrder(
            uuid=UUID,
            id=new_id(),
            at=float(next(self.ticks)),
            trigger="api",
            keep=KEEP,
            max_bytes=LIMITS[0],
            max_entries=LIMITS[1],
            identity={"user_id": "ada@example.com"},
        )

    def make(self, check: Check = never, restic: str = "restic", **order: Any) -> PointSummary:
        """Make a point of the volume; its file `app/which` says which it is."""
        made = make_point(self.volume, self.url, self.keys, replace(self.order(), **order), check, restic)
        which = self.volume / "app/which"
        self.made[made.id] = which.read_text() if which.exists() else ""
        return made

    def make_broken(self) -> PointSummary:
        """Make a point, and damage the data that only it has."""
        before = set(self.folder.glob("repository-1/data/*/*"))
        made = self.make()
        for pack in set(self.folder.glob("repository-1/data/*/*")) - before:
            flip(pack)
        return made

    def restore(
        self,
        point_id: str,
        volume: Path,
        user_id: str = "ada@example.com",
        check: Check = never,
        newer_than: float = 0.0,
        limits: tuple[int, int] = LIMITS,
    ) -> RestoredPoint:
        """Bring a point back to a volume."""
        volume.mkdir(exist_ok=True)
        return restore_point(
            volume, self.url, self.keys, point_id, limits, check, user_id=user_id, newer_than=newer_than
        )

    def stored(self) -> dict[str, bytes]:
        """All that the session has in the store."""
        return {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """A session with a small project, a conversation and a HOME."""
    made = Shelf(tmp_path / "volume", f"file://{tmp_path}/store", ArchiveKeys(new_key()).session(UUID))
    made.write("app/readme", "the project")
    made.write(".session/history.json", "[]")
    made.write("home/.bashrc", "the user's own")
    return made


Script = Callable[[str], str]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes a shell script to run in restic's stead; answers its path."""

    def write(text: str) -> str:
        program = tmp_path / "restic"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        return str(program)

    return write


def flip(file: Path) -> None:
    """Flip one bit in the middle of a file."""
    file.chmod(0o600)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
