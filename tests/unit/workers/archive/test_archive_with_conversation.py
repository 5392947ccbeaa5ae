"""The conversation lies beside the project: a backup holds both, and a restore puts both back, or neither."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.core.backups.store import BackupStore, backup_name
from app.core.errors import ArchiveError, RetryableError
from app.core.sessions.model import Identity
from workers.archive import Terms, restore_backup, write_backup

NOW = 1_763_625_600.0
NAME = backup_name("abcd1234", NOW)
IDENTITY = Identity(uuid="abcd1234", user_id="ann", created_at=NOW)
HISTORY = json.dumps([{"id": "m1", "role": "user", "content": "a private prompt", "at": "x"}])


class Killed(BaseException):
    """The process ends."""


@pytest.fixture
def beside(root: Path) -> Path:
    """The conversation of a workspace with one file."""
    (root / "file").write_text("content")
    return converse(root.parent)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where to restore to: a volume with other files and another conversation."""
    folder = tmp_path / "volume"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "before").write_text("before")
    (folder / ".session").mkdir()
    (folder / ".session" / "metadata.json").write_text("before")
    return folder


def converse(folder: Path) -> Path:
    (folder / ".session").mkdir()
    (folder / ".session" / "history.json").write_text(HISTORY)
    (folder / ".session" / "metadata.json").write_text('{"uuid": "abcd1234"}')
    return folder / ".session"


def back_up(root: Path, store: BackupStore, terms: Terms | None = None) -> None:
    write_backup(root, store, NAME, IDENTITY, NOW, terms or Terms())


def bring_back(store: BackupStore, place: Path, user_id: str = "ann") -> None:
    restore_backup(store, NAME, place / "app", 1 << 30, 1000, user_id=user_id)


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in found}


BEFORE = {"app/before": "before", ".session/metadata.json": "before"}
AFTER = {"app/file": "content", ".session/history.json": HISTORY, ".session/metadata.json": '{"uuid": "abcd1234"}'}


def test_it_comes_back_beside_the_project(root: Path, beside: Path, store: BackupStore, place: Path) -> None:
    back_up(root, store)
    bring_back(store, place)
    assert files(place) == AFTER
    assert (place / ".session").stat().st_mode & 0o777 == 0o700
    assert store.sidecar(NAME)["conversation"]["messages"][0]["content"] == "a private prompt"


@pytest.mark.parametrize("user_id", ["ann", "ben"])
def test_a_folder_in_the_project_is_no_conversation(root: Path, store: BackupStore, place: Path, user_id: str) -> None:
    """Whatever is in it: a repository can bring one that looks like a conversation, and the agent must not go on with
    that. It comes back where it was, for any user."""
    (root / "file").write_text("content")
    converse(root)
    back_up(root, store)
    with zipfile.ZipFile(store.open(NAME)) as archive:
        assert not [name for name in archive.namelist() if name.startswith(".session")]
    assert store.sidecar(NAME)["conversation"] is None
    bring_back(store, place, user_id)
    assert files(place) == {f"app/{name.removeprefix('app/')}": text for name, text in AFTER.items()}


def test_one_begun_while_the_project_is_read_is_in_the_backup(root: Path, store: BackupStore, place: Path) -> None:
    """An agent's first start makes it, and its first prompt may change the files that are read."""
    (root / "file").write_text("content")
    begun = False

    def begin() -> None:
        nonlocal begun
        if not begun:
            converse(root.parent)
            begun = True

    back_up(root, store, Terms(check=begin))
    bring_back(store, place)
    assert files(place) == AFTER


def test_a_backup_without_one_leaves_none(root: Path, store: BackupStore, place: Path) -> None:
    """The conversation that was there belongs to the files that were there."""
    (root / "file").write_text("content")
    back_up(root, store)
    bring_back(store, place)
    assert files(place) == {"app/file": "content"}
    assert store.sidecar(NAME)["conversation"] is None


def test_a_project_may_have_a_folder_of_that_name(root: Path, beside: Path, store: BackupStore, place: Path) -> None:
    """Each comes back where it was; the project's may have a link, and another user gets it too."""
    (root / ".session").mkdir()
    (root / ".session" / "cache").write_text("mine")
    (root / ".session" / "link").symlink_to("../file")
    (root / ".session" / "out").symlink_to("../../else")
    (root / ".session-notes").write_text("x")
    back_up(root, store)
    own = {"app/.session/cache": "mine", "app/.session/link": "content", "app/.session-notes": "x"}
    bring_back(store, place)
    assert files(place) == AFTER | own
    bring_back(store, place, user_id="ben")
    assert files(place) == {"app/file": "content"} | own


@pytest.mark.parametrize("names", [["history.json", "metadata.json"], ["journal"]])
def test_another_user_gets_no_conversation(
    root: Path, beside: Path, store: BackupStore, place: Path, names: list[str]
) -> None:
    """No file of it, whichever there are; and none that was there before stays."""
    for path in beside.iterdir():
        path.unlink()
    for name in names:
        (beside / name).write_text(HISTORY)
    back_up(root, store)
    bring_back(store, place, user_id="ben")
    assert files(place) == {"app/file": "content"}


def test_links_in_it_are_left_out(root: Path, beside: Path, store: BackupStore, place: Path, tmp_path: Path) -> None:
    """They could lead anywhere on the volume, to secrets too; the agent makes none."""
    (tmp_path / "secret").write_text("secret")
    (beside / "link").symlink_to("../secret")
    back_up(root, store)
    bring_back(store, place)
    assert files(place) == AFTER and not os.path.lexists(place / ".session" / "link")


def renames(count: int, fail: type[BaseException]) -> Callable[..., None]:
    """`os.rename` that does so many, and then nothing more."""
    done, rename = iter(range(count)), os.rename

    def limited(source: Path, target: Path) -> None:
        if next(done, None) is None:
            raise fail(5, "the end")
        rename(source, target)

    return limited


@contextmanager
def after_renames(count: int, fail: type[BaseException]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, pytest.raises((fail, RetryableError)):
        patch.setattr(os, "rename", renames(count, fail))
        yield


@pytest.mark.parametrize("count", range(5))
def test_a_run_killed_between_the_renames_is_completed_or_has_done_nothing(
    root: Path, beside: Path, store: BackupStore, place: Path, count: int
) -> None:
    """By the next run, even if that run's own backup is refused."""
    back_up(root, store)
    with after_renames(count, Killed):
        bring_back(store, place)
    (place / "app").mkdir(exist_ok=True)  # a provision makes it again
    (Path(store.files.root) / "abcd1234" / NAME).write_bytes(b"damaged")
    with pytest.raises(ArchiveError):
        bring_back(store, place)
    assert files(place) == (AFTER if count else BEFORE)
    assert sorted(path.name for path in place.iterdir()) == [".session", "app"]


@pytest.mark.parametrize("count", range(5))
def test_a_rename_that_fails_is_undone_with_those_before_it(
    root: Path, beside: Path, store: BackupStore, place: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(root, store)
    rename, calls = os.rename, iter(range(100))

    def failing(source: Path, target: Path) -> None:
        if next(calls) == count:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(RetryableError):
        bring_back(store, place)
    monkeypatch.undo()
    assert files(place) == BEFORE
    assert sorted(path.name for path in place.iterdir()) == [".session", "app"]
