"""What can't stand for the workspace is no backup: one that misses files, that could not be restored, or that nobody
wants any more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core.errors import BackupIncomplete, FilesGone, PermanentError, RetryableError, Superseded
from tests.unit.workers.archive.conftest import NAME, Bench, overtaken, unprivileged
from workers.archive import walking

EVERY = 1_000_000


class Counting:
    """A check that does something at its call `at`, and counts them."""

    def __init__(self, at: int = EVERY, act: Callable[[], object] = lambda: None) -> None:
        self.at, self.act, self.calls = at, act, 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.act()


# Files that go while they are read


@pytest.fixture
def phantoms(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Callable[[int, int], None]:
    """Lets so many files vanish between being listed and being looked at, in the first passes."""

    def set_up(many: int, passes: int) -> None:
        listed: Callable[[int], list[str]] = os.listdir
        left = [[f"gone{number}" for number in range(many)]] * passes

        def listing(folder: int) -> list[str]:
            return listed(folder) + (left.pop() if left else [])

        monkeypatch.setattr(walking.os, "listdir", listing)

    (bench.root / "stays").write_text("x")
    return set_up


@pytest.mark.parametrize(("many", "changed"), [(50, 50), (51, 0)])
def test_files_that_vanish_in_numbers_are_looked_for_again(
    phantoms: Callable[[int, int], None], bench: Bench, many: int, changed: int
) -> None:
    """A few are a running workspace's way, and noted; many are reason for a second look, which finds all."""
    phantoms(many, 1)
    assert len(bench.back_up().changed) == changed


def test_files_that_vanish_in_numbers_again_and_again_leave_no_backup(
    phantoms: Callable[[int, int], None], bench: Bench
) -> None:
    """What is left would pass for the workspace, and be the last of it."""
    phantoms(51, 2)
    bench.refuse(RetryableError, "^51 files or folders vanished")


@pytest.fixture
def tree(bench: Bench) -> Path:
    """A project with 40 files."""
    for number in range(40):
        (bench.root / f"file{number:02}").write_bytes(os.urandom(100))
    return bench.root


@pytest.mark.parametrize("at", [1, 20, 41])
def test_a_workspace_taken_away_while_it_is_read_has_no_backup(tree: Path, bench: Bench, at: int) -> None:
    """Though all its files are read: what was deleted of it can't be told. The last check comes before verification."""
    bench.refuse(FilesGone, check=Counting(at, lambda: tree.rename(bench.folder / "trash")))


def test_a_workspace_whose_files_were_replaced_is_backed_up_another_time(tree: Path, bench: Bench) -> None:
    """As by a restore: the old files are nobody's any more."""

    def replace() -> None:
        tree.rename(bench.folder / "trash")
        tree.mkdir()

    bench.refuse(RetryableError, "replaced", check=Counting(20, replace))


# Work nobody wants any more


def spots(calls: int) -> list[int]:
    """The first call, the last, and some between."""
    return sorted({1, 2, calls // 3, calls // 2, calls - 1, calls})


@pytest.mark.slow
def test_a_backup_can_be_broken_off_anywhere_and_leaves_nothing(tree: Path, bench: Bench) -> None:
    """Between files, between the blocks of a large one, while it is verified, and before it is published."""
    (tree / "large").write_bytes(os.urandom(20 << 20))
    counted = Counting()
    bench.back_up(check=counted)
    # Every entry, and every block: of the file, of the zip, and of what is in the zip.
    assert counted.calls > 41 + 3 * 20
    bench.store.delete(NAME)
    for spot in spots(counted.calls):
        bench.refuse(Superseded, "overtaken", check=Counting(spot, overtaken))
    bench.back_up(check=Counting())


@pytest.mark.slow
def test_a_restore_can_be_broken_off_anywhere_and_leaves_the_files(
    tree: Path, bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What was there before is there, and nothing beside it."""
    (tree / "large").write_bytes(os.urandom(20 << 20))
    (tree / "deep" / "er").mkdir(parents=True)
    bench.back_up()
    counted, other = Counting(), Bench(tmp_path_factory.mktemp("other"))
    other.store = bench.store
    other.bring_back(check=counted)
    assert counted.calls > 41 + 2 * 20
    for spot in spots(counted.calls):
        with pytest.raises(Superseded):
            bench.bring_back(check=Counting(spot, overtaken))
        bench.expect_untouched()


# What could not be restored


@pytest.mark.parametrize(("limit", "text"), [({"max_bytes": 29}, "30 bytes"), ({"max_entries": 4}, "5 files")])
def test_what_could_not_be_restored_is_not_backed_up(bench: Bench, limit: dict[str, int], text: str) -> None:
    """It says how much there is, what the limit is, and what to do about it; at the limit both go well."""
    (bench.root / "folder").mkdir()
    (bench.root / "folder" / "large").write_bytes(b"x" * 20)
    (bench.root / "small").write_bytes(b"x" * 9)
    (bench.root / "link").symlink_to("s")
    (bench.root / "empty").touch()
    os.mkfifo(bench.root / "pipe")
    bench.refuse(PermanentError, f"{text}.*the largest is “folder/large” with 20 bytes.*RESTORE_MAX_BYTES", **limit)
    bench.back_up(max_bytes=30, max_entries=5)
    bench.bring_back(max_bytes=30, max_entries=5)
    assert (bench.target / "folder" / "large").stat().st_size == 20


def test_a_file_above_the_limit_is_not_even_read(bench: Bench) -> None:
    """Its size says enough."""
    (bench.root / "large").write_bytes(b"x" * (9 << 20))
    check = Counting()
    bench.refuse(PermanentError, "At most 9437183 bytes", max_bytes=(9 << 20) - 1, check=check)
    assert check.calls < 9


# What may not be read


@pytest.fixture
def guarded() -> Iterator[Bench]:
    """A workspace of somebody who is not root, with files and folders even he may not read."""
    with unprivileged() as folder:
        bench = Bench(folder)
        for path in ("notes/mine.txt", "closed/inner", "listed/name", "open"):
            (bench.root / path).parent.mkdir(exist_ok=True)
            (bench.root / path).write_text("x")
        (bench.root / "notes/mine.txt").chmod(0)
        (bench.root / "closed").chmod(0)
        (bench.root / "listed").chmod(0o444)
        yield bench
        bench.root.chmod(0o755)
        for project in (bench.root, bench.target):
            for each in project.glob("*ed"):
                each.chmod(0o755)


UNREADABLE = ("closed", "listed/name", "notes/mine.txt")


def test_a_backup_that_must_be_whole_fails_at_what_may_not_be_read(guarded: Bench) -> None:
    """All of it is counted, and named so that it can be mended."""
    text = rf"missing from the backup: 3 \(“{', '.join(UNREADABLE)}”\)\. Make them readable, or ask for a partial"
    guarded.refuse(BackupIncomplete, text)


def test_a_partial_backup_holds_the_rest_and_says_what_it_lacks(guarded: Bench) -> None:
    """It is restored like any other, without those files; and it doesn't pass for a whole one."""
    summary = guarded.back_up(partial=True)
    sidecar = guarded.store.sidecar(NAME)
    assert (summary.unreadable, summary.unreadable_count, summary.changed) == (UNREADABLE, 3, ())
    assert (sidecar["complete"], sidecar["unreadable"], sidecar["unreadable_count"]) == (False, list(UNREADABLE), 3)
    guarded.bring_back()
    for folder in ("closed", "listed"):
        (guarded.target / folder).chmod(0o755)
    assert sorted(path.name for path in guarded.target.rglob("*")) == ["closed", "listed", "notes", "open"]
    with pytest.raises(BackupIncomplete, match="3 .*mine.txt"):
        guarded.back_up()


def test_many_unreadable_files_are_counted_and_some_are_named(guarded: Bench) -> None:
    """A sidecar stays small."""
    for number in range(150):
        (guarded.root / f"file{number:03}").touch(mode=0)
    guarded.refuse(BackupIncomplete, "153 .*, …")
    summary = guarded.back_up(partial=True)
    assert (len(summary.unreadable), summary.unreadable_count) == (100, 153)


@pytest.mark.parametrize("partial", [False, True])
def test_a_workspace_of_which_nothing_may_be_read_has_no_backup(guarded: Bench, partial: bool) -> None:
    """Not even a partial one: it would hold nothing."""
    guarded.root.chmod(0)
    guarded.refuse(BackupIncomplete, "folder is not readable", partial=partial)
