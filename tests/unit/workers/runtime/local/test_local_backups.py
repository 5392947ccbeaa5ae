"""Backups of the local runtime beside everything else that may happen to a workspace."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.backups.store import BackupStore, NewBackup, backup_name
from app.core.errors import (
    FilesGone,
    PermanentError,
    RetryableError,
    SessionError,
    Superseded,
)
from tests.contract.runtimes import identity
from tests.unit.workers.archive.conftest import overtaken
from tests.unit.workers.runtime.local.test_local_runtime import A, B, Stage, stage
from workers.archive import replace as replacing
from workers.runtime.local import driver as local
from workers.runtime.local.storage import DRILL

__all__ = ["stage"]

NAME = backup_name(A, 1_763_625_600.0)
FILES, FOLDERS = 3_000, 30


def fill(stage: Stage) -> None:
    """Many small files, of which a backup writes the first megabyte long before it has read the last."""
    stage.runtime.provision(identity(A), 1)
    for number in range(FILES):
        folder = stage.folders.app(A) / f"folder{number % FOLDERS:02}"
        folder.mkdir(exist_ok=True)
        (folder / f"file{number}").write_bytes(os.urandom(600))


def put(stage: Stage, uuid: str, content: bytes) -> Path:
    """Make a workspace with one file."""
    stage.runtime.provision(identity(uuid), 1)
    file = stage.folders.app(uuid) / "file"
    file.write_bytes(content)
    return file


def leftovers(stage: Stage) -> list[Path]:
    """Of backups and restores."""
    data = stage.settings.data_dir
    return [*data.glob("backups/.app-*"), *data.glob("workspaces/*/*ing*"), *data.glob("trash/*")]


def amid(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do it once while a backup is being written."""
    write = NewBackup.write

    def meddling(self: NewBackup, chunk: bytes) -> None:
        monkeypatch.setattr(NewBackup, "write", write)
        act()
        write(self, chunk)

    monkeypatch.setattr(NewBackup, "write", meddling)


def refused(stage: Stage, kind: type[SessionError]) -> None:
    with pytest.raises(kind) as caught:
        stage.runtime.backup(A, NAME)
    assert type(caught.value) is kind
    assert not BackupStore(stage.settings.backups_location()).exists(NAME) and not leftovers(stage)


def take_away(stage: Stage) -> None:
    """As somebody who knows nothing of locks."""
    stage.folders.discard(A)
    stage.folders.empty_trash()


@pytest.mark.slow
@pytest.mark.parametrize("remove", [take_away, lambda stage: stage.runtime.remove(A, 2, force=True)])
def test_files_taken_away_or_removed_by_force_while_they_are_read_leave_no_backup(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, remove: Callable[[Stage], None]
) -> None:
    """What was left of them would be verified, and the newest. A forced removal waits for no backup: nobody wants
    one."""
    fill(stage)
    amid(monkeypatch, lambda: remove(stage))
    refused(stage, FilesGone)
    assert stage.runtime.observe(A) is None
    assert os.listdir(stage.settings.data_dir / "locks") == [f"{A}.lock"]


@pytest.mark.slow
def test_a_removal_waits_for_a_backup_and_comes_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two workers at one teardown the slower reads all; neither breaks the other's work. No lock of it stays."""
    monkeypatch.setattr(local, "LOCK_SLACK", 0.05)

    def remove() -> None:
        with pytest.raises(RetryableError, match="locked"):
            stage.runtime.remove(A, 2)

    fill(stage)
    amid(monkeypatch, remove)
    summary = stage.runtime.backup(A, NAME)
    assert (summary.files, summary.changed) == (FILES, ())
    stage.runtime.remove(A, 2)
    assert stage.runtime.observe(A) is None
    assert os.listdir(stage.settings.data_dir / "locks") == [f"{A}.lock"]


def test_a_backup_comes_again_when_a_removal_is_at_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """And then there is nothing."""
    monkeypatch.setattr(local, "LOCK_SLACK", 0.05)
    stage.runtime.provision(identity(A), 1)
    with stage.folders.locked(A, 0.0, "files"):
        refused(stage, RetryableError)
    stage.runtime.remove(A, 2)
    refused(stage, FilesGone)


@pytest.mark.slow
def test_neither_wakes_nor_other_backups_wait_for_a_backup(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take an hour."""
    other = backup_name(A, 1_763_625_601.0)

    def act() -> None:
        stage.runtime.start(A, 2)
        stage.runtime.stop(A, 3)
        stage.runtime.backup(A, other)

    fill(stage)
    amid(monkeypatch, act)
    assert [stage.runtime.backup(A, NAME).files, stage.runtime.backup(A, other).files] == [FILES, FILES]


@pytest.mark.slow
def test_a_restore_puts_no_files_in_the_place_of_those_that_are_read(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has brought its files together, waits for a while, and comes again; the workspace is as it was."""
    monkeypatch.setattr(local, "SWAP_PATIENCE", 0.05)
    fill(stage)
    put(stage, B, b"restored")
    source = backup_name(B, 1_763_625_602.0)
    stage.runtime.backup(B, source)

    def restore() -> None:
        with pytest.raises(RetryableError, match="locked"):
            stage.runtime.restore(identity(A, restore_from=source), 2)

    amid(monkeypatch, restore)
    assert stage.runtime.backup(A, NAME).files == FILES
    assert not leftovers(stage)
    stage.runtime.restore(identity(A, restore_from=source), 2)
    assert os.listdir(stage.folders.app(A)) == ["file"]


def test_a_wait_for_files_ends_when_it_is_no_longer_wanted(stage: Stage) -> None:
    """Whatever it waits for."""
    stage.runtime.provision(identity(A), 1)
    with stage.folders.locked(A, 0.0, "files"), pytest.raises(Superseded):
        stage.runtime.backup(A, NAME, check=overtaken)


def test_the_limits_of_a_restore_are_those_of_a_backup(stage: Stage) -> None:
    """What is deleted after its backup can be brought back."""
    put(stage, A, b"12345")
    for most_bytes, most_entries in ((4, 1), (5, 0)):
        stage.change(restore_max_bytes=most_bytes, restore_max_entries=most_entries)
        refused(stage, PermanentError)
    stage.change(restore_max_bytes=5, restore_max_entries=1)
    stage.runtime.backup(A, NAME)
    stage.runtime.restore(identity(B, restore_from=NAME), 1)
    assert (stage.folders.app(B) / "file").read_bytes() == b"12345"


def test_what_a_restore_left_that_was_killed_when_it_was_done_goes_with_the_next(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that it replaced; the restored ones stay, with what was done since."""
    put(stage, A, b"from the backup")
    stage.runtime.backup(A, NAME)
    with monkeypatch.context() as killed:
        killed.setattr(replacing, "delete_tree", lambda path: None)
        stage.runtime.restore(identity(B, restore_from=NAME), 1)
    assert leftovers(stage)
    (stage.folders.app(B) / "file").write_bytes(b"edited since")
    stage.runtime.restore(identity(B, restore_from=NAME), 1)
    assert not leftovers(stage)
    assert (stage.folders.app(B) / "file").read_bytes() == b"edited since"


def test_what_a_killed_drill_left_is_tidied_away_and_a_running_one_is_let_be(stage: Stage) -> None:
    for uuid in (A, B):
        (stage.folders.drill(uuid) / "app/file").mkdir(parents=True)
    with stage.folders.locked(B, 0.0, DRILL):
        stage.runtime.tidy()
        assert not stage.folders.drill(A).exists()
        assert (stage.folders.drill(B) / "app/file").exists()
    stage.runtime.tidy()
    assert not stage.folders.drill(B).exists()
