"""What can't stand for the workspace is no backup: one that misses files, that could not be restored, or that nobody
wants any more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.backups.store import BackupStore
from app.core.errors import (
    BackupIncomplete,
    FilesGone,
    PermanentError,
    RetryableError,
    SessionError,
    Superseded,
)
from tests.unit.workers.archive.test_archive import IDENTITY, NAME, NOW, bring_back, leftovers, seen, unprivileged
from workers.archive import Terms, restore_backup, walking, write_backup
from workers.runtime.base import BackupSummary

EVERY = 1_000_000


def back_up(root: Path, store: BackupStore, **terms: Any) -> BackupSummary:
    return write_backup(root, store, NAME, IDENTITY, NOW, Terms(**terms))


def refused(
    kind: type[SessionError], root: Path, store: BackupStore, folder: Path, match: str | None = None, **terms: Any
) -> None:
    """There is no backup, for that reason, and nothing of one."""
    with pytest.raises(kind, match=match) as caught:
        back_up(root, store, **terms)
    assert type(caught.value) is kind
    assert not store.exists(NAME) and not leftovers(folder)


class Counting:
    """A check that does something at its call `at`, and counts them."""

    def __init__(self, at: int = EVERY, act: Callable[[], object] = lambda: None) -> None:
        self.at, self.act, self.calls = at, act, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.act()


def overtake() -> None:
    raise Superseded("Intent 1 was overtaken by 2.")


# Files that go while they are read


def phantoms(monkeypatch: pytest.MonkeyPatch, many: int, passes: int) -> None:
    """Let so many files vanish between being listed and being looked at, in the first passes."""
    listed: Callable[[int], list[str]] = os.listdir
    left = [passes]

    def listing(folder: int) -> list[str]:
        left[0] -= 1
        return listed(folder) + ([f"gone{number}" for number in range(many)] if left[0] >= 0 else [])

    monkeypatch.setattr(walking.os, "listdir", listing)


@pytest.mark.parametrize(("many", "passes", "changed"), [(50, 1, 50), (51, 1, 0)])
def test_files_that_vanish_in_numbers_are_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore, many: int, passes: int, changed: int
) -> None:
    """A few are a running workspace's way, and noted; many are reason for a second look, which finds all."""
    (root / "stays").write_text("x")
    phantoms(monkeypatch, many, passes)
    assert len(back_up(root, store).changed) == changed


def test_files_that_vanish_in_numbers_again_and_again_leave_no_backup(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore, tmp_path: Path
) -> None:
    """What is left would pass for the workspace, and be the last of it."""
    (root / "stays").write_text("x")
    phantoms(monkeypatch, 51, 2)
    refused(RetryableError, root, store, tmp_path / "store", "^51 files or folders vanished")


def whole_tree(root: Path) -> None:
    for number in range(40):
        (root / f"file{number:02}").write_bytes(os.urandom(100))


@pytest.mark.parametrize("at", [1, 20, 41])
def test_a_workspace_taken_away_while_it_is_read_has_no_backup(
    root: Path, store: BackupStore, tmp_path: Path, at: int
) -> None:
    """Though all its files are read: what was deleted of it can't be told. The last check comes before verification."""
    whole_tree(root)
    check = Counting(at, lambda: root.rename(tmp_path / "trash"))
    refused(FilesGone, root, store, tmp_path / "store", check=check)


def test_a_workspace_whose_files_were_replaced_is_backed_up_another_time(
    root: Path, store: BackupStore, tmp_path: Path
) -> None:
    """As by a restore: the old files are nobody's any more."""
    whole_tree(root)

    def replace() -> None:
        root.rename(tmp_path / "trash")
        root.mkdir()

    refused(RetryableError, root, store, tmp_path / "store", "replaced", check=Counting(20, replace))


# Work nobody wants any more


def count(work: Callable[[Counting], object]) -> int:
    """How often the work asks whether it is still wanted."""
    check = Counting()
    work(check)
    return check.calls


def spots(calls: int) -> Iterator[int]:
    """The first call, the last, and some between."""
    return iter(sorted({1, 2, calls // 3, calls // 2, calls - 1, calls}))


@pytest.mark.slow
def test_a_backup_can_be_broken_off_anywhere_and_leaves_nothing(root: Path, tmp_path: Path) -> None:
    """Between files, between the blocks of a large one, while it is verified, and before it is published."""
    whole_tree(root)
    (root / "large").write_bytes(os.urandom(20 << 20))
    first = BackupStore(f"file://{tmp_path}/first")
    calls = count(lambda check: back_up(root, first, check=check))
    # Every entry, and every block: of the file, of the zip, and of what is in the zip.
    assert calls > 41 + 3 * 20
    store = BackupStore(f"file://{tmp_path}/store")
    for spot in spots(calls):
        refused(Superseded, root, store, tmp_path / "store", "overtaken", check=Counting(spot, overtake))
    back_up(root, store, check=Counting())


@pytest.mark.slow
def test_a_restore_can_be_broken_off_anywhere_and_leaves_the_files(
    root: Path, store: BackupStore, tmp_path: Path
) -> None:
    """What was there before is there, and nothing beside it."""
    whole_tree(root)
    (root / "large").write_bytes(os.urandom(20 << 20))
    (root / "deep" / "er").mkdir(parents=True)
    back_up(root, store)
    target = tmp_path / "session" / "app"
    target.mkdir(parents=True)
    (target / "before").write_text("before")

    def restore(check: Counting, to: Path = target) -> None:
        restore_backup(store, NAME, to, EVERY**2, EVERY, check)

    calls = count(lambda check: restore(check, tmp_path / "elsewhere"))
    assert calls > 41 + 2 * 20
    for spot in spots(calls):
        with pytest.raises(Superseded):
            restore(Counting(spot, overtake))
        assert [path.name for path in target.parent.iterdir()] == ["app"]
        assert [path.name for path in target.iterdir()] == ["before"]


# What could not be restored


@pytest.mark.parametrize(("limit", "text"), [({"max_bytes": 29}, "30 bytes"), ({"max_entries": 4}, "5 files")])
def test_what_could_not_be_restored_is_not_backed_up(
    root: Path, store: BackupStore, tmp_path: Path, limit: dict[str, int], text: str
) -> None:
    """It says how much there is, what the limit is, and what to do about it; at the limit both go well."""
    (root / "folder").mkdir()
    (root / "folder" / "large").write_bytes(b"x" * 20)
    (root / "small").write_bytes(b"x" * 9)
    (root / "link").symlink_to("s")
    (root / "empty").touch()
    os.mkfifo(root / "pipe")
    text += ".*the largest is “folder/large” with 20 bytes.*RESTORE_MAX_BYTES"
    refused(PermanentError, root, store, tmp_path / "store", text, **limit)
    back_up(root, store, max_bytes=30, max_entries=5)
    bring_back(store, tmp_path / "restored", max_bytes=30, max_entries=5)
    assert (tmp_path / "restored" / "folder" / "large").stat().st_size == 20


def test_a_file_above_the_limit_is_not_even_read(root: Path, store: BackupStore, tmp_path: Path) -> None:
    """Its size says enough."""
    (root / "large").write_bytes(b"x" * (9 << 20))
    check = Counting()
    refused(PermanentError, root, store, tmp_path / "store", "At most 9437183 bytes", max_bytes=(9 << 20) - 1,
            check=check)  # fmt: skip
    assert check.calls < 9


# What may not be read


@pytest.fixture
def guarded() -> Iterator[Path]:
    """A workspace of somebody who is not root, with files and folders even he may not read."""
    with unprivileged() as folder:
        app = folder / "app"
        (app / "notes").mkdir(parents=True)
        (app / "notes" / "mine.txt").write_text("x")
        (app / "closed").mkdir()
        (app / "closed" / "inner").write_text("x")
        (app / "listed").mkdir()
        (app / "listed" / "name").write_text("x")
        (app / "open").write_text("open")
        (app / "notes" / "mine.txt").chmod(0)
        (app / "closed").chmod(0)
        (app / "listed").chmod(0o444)
        yield folder
        for name in ("", "closed", "listed"):
            (app / name).chmod(0o755)


UNREADABLE = ("closed", "listed/name", "notes/mine.txt")


def test_a_backup_that_must_be_whole_fails_at_what_may_not_be_read(guarded: Path) -> None:
    """All of it is counted, and named so that it can be mended."""
    theirs = BackupStore(f"file://{guarded}/store")
    text = rf"missing from the backup: 3 \(“{', '.join(UNREADABLE)}”\)\. Make them readable, or ask for a partial"
    refused(BackupIncomplete, guarded / "app", theirs, guarded / "store", text)


def test_a_partial_backup_holds_the_rest_and_says_what_it_lacks(guarded: Path) -> None:
    """It is restored like any other, without those files; and it doesn't pass for a whole one."""
    theirs = BackupStore(f"file://{guarded}/store")
    summary = back_up(guarded / "app", theirs, partial=True)
    sidecar = theirs.sidecar(NAME)
    assert (summary.unreadable, summary.unreadable_count, summary.changed) == (UNREADABLE, 3, ())
    assert (sidecar["complete"], sidecar["unreadable"], sidecar["unreadable_count"]) == (False, list(UNREADABLE), 3)
    bring_back(theirs, guarded / "restored")
    (guarded / "restored" / "closed").chmod(0o755)
    (guarded / "restored" / "listed").chmod(0o755)
    assert sorted(map(os.fsdecode, seen(guarded / "restored"))) == ["closed", "listed", "notes", "open"]
    with pytest.raises(BackupIncomplete, match="3 .*mine.txt"):
        back_up(guarded / "app", theirs)
    (guarded / "restored" / "open").unlink()


def test_many_unreadable_files_are_counted_and_some_are_named(guarded: Path) -> None:
    """A sidecar stays small."""
    for number in range(150):
        (guarded / "app" / f"file{number:03}").touch(mode=0)
    summary = back_up(guarded / "app", BackupStore(f"file://{guarded}/store"), partial=True)
    assert (len(summary.unreadable), summary.unreadable_count) == (100, 153)
    refused(BackupIncomplete, guarded / "app", BackupStore(f"file://{guarded}/more"), guarded / "more", "153 .*, …")


@pytest.mark.parametrize("partial", [False, True])
def test_a_workspace_of_which_nothing_may_be_read_has_no_backup(guarded: Path, partial: bool) -> None:
    """Not even a partial one: it would hold nothing."""
    (guarded / "app").chmod(0)
    theirs = BackupStore(f"file://{guarded}/store")
    refused(BackupIncomplete, guarded / "app", theirs, guarded / "store", "folder is not readable", partial=partial)
