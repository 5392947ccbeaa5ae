"""A project that is backed up, a store, and another workspace to which backups are restored."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from app.core.backups.store import BackupStore, backup_name, session_of
from app.core.errors import SessionError, Superseded
from app.core.sessions.model import Identity
from workers.archive import Terms, restore_backup, write, write_backup
from workers.runtime.base import BackupSummary, Check, never

NOW = 1_763_625_600.0
NAME = backup_name("abcd1234", NOW)
IDENTITY = Identity(uuid="abcd1234", user_id="ann@example.org", created_at=NOW - 60, size="large", labels={"team": "x"})
NOBODY = 65534
GIB = 1 << 30

BEFORE = {"app/before": "before", ".session/metadata.json": "before"}
"""What is in the workspace to which backups are restored, and must survive every refusal."""


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


class Bench:
    """The project is `root`, on a volume of its own; it is restored to `target`, on the volume `place`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "volume/app"
        self.root.mkdir(parents=True)
        self.store = BackupStore(f"file://{folder}/store")
        self.stored = folder / "store" / session_of(NAME) / NAME
        self.identity = IDENTITY
        self.place = folder / "session"
        self.target = self.place / "app"
        for path, text in BEFORE.items():
            (self.place / path).parent.mkdir(parents=True)
            (self.place / path).write_text(text)

    def back_up(self, **terms: Any) -> BackupSummary:
        return write_backup(self.root, self.store, NAME, self.identity, NOW, Terms(**terms))

    def bring_back(
        self, max_bytes: int = GIB, max_entries: int = 100_000, check: Check = never, user_id: str | None = None
    ) -> None:
        restore_backup(self.store, NAME, self.target, max_bytes, max_entries, check, user_id=user_id)

    def refuse(self, kind: type[SessionError], match: str | None = None, **terms: Any) -> None:
        """There is no backup, for that reason, and nothing of one."""
        with pytest.raises(kind, match=match) as caught:
            self.back_up(**terms)
        assert type(caught.value) is kind
        self.expect_nothing_stored()

    def expect_nothing_stored(self) -> None:
        assert not self.store.exists(NAME)
        assert [path.name for path in (self.folder / "store").glob(".*") if path.name != ".publishing"] == []

    def expect_untouched(self) -> None:
        """What was in the workspace is there, and nothing else, nor anything beside it."""
        assert files(self.place) == BEFORE
        assert os.listdir(self.target) == ["before"]
        assert sorted(path.name for path in self.place.iterdir()) == [".session", "app"]
        assert {path.name for path in self.folder.iterdir()} <= {"session", "store", "volume"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder anyone may write to, with the rights of a user who is not root."""
    folder = Path(tempfile.mkdtemp(prefix="unprivileged-"))
    folder.chmod(0o777)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


def nothing(count: int) -> None:
    """What happens between two system calls where nobody meddles."""


def meddle(
    monkeypatch: pytest.MonkeyPatch,
    path: Path,
    before_open: Callable[[int], object] = nothing,
    before_read: Callable[[int], object] = nothing,
) -> None:
    """Change the workspace between two of the backup's system calls on a file: each function is told how often it was
    called before."""
    open_file, opened, read = write.open_file, count(), count()

    @contextmanager
    def meddling(folder: int, name: str) -> Iterator[Any]:
        meddled = name == path.name
        if meddled:
            before_open(next(opened))
        with open_file(folder, name) as file:
            yield Meddled(file, lambda: before_read(next(read))) if meddled else file

    monkeypatch.setattr(write, "open_file", meddling)


class Meddled:
    def __init__(self, file: Any, before_read: Callable[[], object]) -> None:
        self._file, self._before_read = file, before_read
        self.fileno, self.seek = file.fileno, file.seek

    def read(self, size: int) -> bytes:
        self._before_read()
        return bytes(self._file.read(size))


def overtaken() -> None:
    raise Superseded("Intent 1 was overtaken by 2.")
