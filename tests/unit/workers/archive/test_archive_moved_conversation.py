"""The conversation lies beside the project: a backup holds both, and a restore puts both back, or neither."""

from __future__ import annotations

import json
import os
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


def test_one_within_the_project_comes_back_beside_it(root: Path, store: BackupStore, place: Path) -> None:
    """As an agent of an earlier release has it, and as its backups do."""
    (root / "file").write_text("content")
    converse(root)
    back_up(root, store)
    bring_back(store, place)
    assert files(place) == AFTER
    assert store.sidecar(NAME)["conversation"]["total"] == 1


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


@pytest.mark.parametrize("within", [False, True])
def test_another_user_gets_no_conversation(root: Path, store: BackupStore, place: Path, within: bool) -> None:
    """Wherever it was; and none that was there before stays."""
    (root / "file").write_text("content")
    converse(root if within else root.parent)
    back_up(root, store)
    bring_back(store, place, user_id="ben")
    assert files(place) == {"app/file": "content"}


def test_another_user_gets_none_that_was_left_in_the_project(
    root: Path, beside: Path, store: BackupStore, place: Path
) -> None:
    """As after a way back to an earlier release and forth again."""
    converse(root)
    back_up(root, store)
    bring_back(store, place)
    assert files(place) == AFTER | {f"app/{name}": text for name, text in AFTER.items() if ".session" in name}
    bring_back(store, place, user_id="ben")
    assert files(place) == {"app/file": "content"}


def test_links_in_it_are_left_out(root: Path, beside: Path, store: BackupStore, place: Path, tmp_path: Path) -> None:
    """They could lead anywhere on the volume, to secrets too; the agent makes none."""
    (tmp_path / "secret").write_text("secret")
    (beside / "link").symlink_to("../secret")
    back_up(root, store)
    bring_back(store, place)
    assert files(place) == AFTER and not os.path.lexists(place / ".session" / "link")


def test_a_move_during_the_backup_is_noticed(root: Path, store: BackupStore, place: Path) -> None:
    """The agent's first start moves it: the backup begins again, and holds it once."""
    (root / "file").write_text("content")
    converse(root)
    calls = iter(range(1000))

    def move() -> None:
        if next(calls) == 1:
            (root / ".session").rename(root.parent / ".session")

    back_up(root, store, Terms(check=move))
    bring_back(store, place)
    assert files(place) == AFTER


def test_a_backup_whose_conversation_is_moved_again_and_again_is_none(root: Path, store: BackupStore) -> None:
    converse(root)

    def move() -> None:
        (root.parent / ".session").mkdir(exist_ok=True)
        (root.parent / ".session" / "metadata.json").touch()
        raise RetryableError("broken off")

    with pytest.raises(RetryableError):
        back_up(root, store, Terms(check=move))
    assert store.names() == []


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
