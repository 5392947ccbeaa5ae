"""A folder is deleted whatever its depth and its modes, and nothing else is, whatever is done to it meanwhile."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from app.volume import deletion
from app.volume.deletion import delete
from tests.deep_tree import DeepTrees
from tests.unit.workers.archive.test_archive import unprivileged


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Some twenty more than are open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.usefixtures("few_descriptors")
def test_a_tree_of_any_depth_is_deleted(tmp_path: Path, deep_trees: DeepTrees, forced: bool) -> None:
    deep_trees(tmp_path / "tree")
    (tmp_path / "tree/beside").mkdir()
    (tmp_path / "tree/beside/file").touch()
    delete(tmp_path / "tree", forced=forced)
    assert list(tmp_path.iterdir()) == []


def test_what_its_owner_may_not_read_or_change_goes_only_if_forced(deep_trees: DeepTrees) -> None:
    with unprivileged() as folder:
        deep_trees(folder / "tree")
        for path, mode in (("tree/d/d/d", 0o000), ("tree/d/d", 0o444), ("tree/d", 0o555), ("tree", 0o000)):
            (folder / path).chmod(mode)
        with pytest.raises(PermissionError):
            delete(folder / "tree")
        assert [path.name for path in folder.iterdir()] == ["tree"]
        delete(folder / "tree", forced=True)
        assert list(folder.iterdir()) == []


def test_a_path_is_relative_to_the_given_folder(tmp_path: Path) -> None:
    (tmp_path / "tree/below").mkdir(parents=True)
    within = os.open(tmp_path, os.O_PATH)
    delete("tree", within)
    os.close(within)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "file", "link"])
def test_only_a_folder_is_deleted(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    with pytest.raises(OSError):
        delete(tmp_path / kind, forced=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]


def meanwhile(monkeypatch: pytest.MonkeyPatch, at: int, change: Callable[[], object]) -> None:
    """Make the change after the nth folder was listed."""
    listed, real = count(1), deletion._without_files

    def changed(folder: int) -> list[str]:
        found = real(folder)
        if next(listed) == at:
            change()
        return found

    monkeypatch.setattr(deletion, "_without_files", changed)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree, and beside it a folder with content."""
    (tmp_path / "tree/a/b/c").mkdir(parents=True)
    (tmp_path / "outside/a").mkdir(parents=True)
    (tmp_path / "outside/a/file").touch()
    return tmp_path / "tree"


@pytest.mark.parametrize("forced", [False, True])
def test_a_link_in_the_place_of_a_folder_is_not_followed(
    tree: Path, monkeypatch: pytest.MonkeyPatch, forced: bool
) -> None:
    def swap() -> None:
        (tree / "a").rename(tree.parent / "kept")
        (tree / "a").symlink_to(tree.parent / "outside/a")

    meanwhile(monkeypatch, 1, swap)
    mode = (tree.parent / "outside/a").stat().st_mode
    with pytest.raises(NotADirectoryError):
        delete(tree, forced=forced)
    assert (tree.parent / "outside/a/file").exists() and (tree.parent / "outside/a").stat().st_mode == mode


@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_folder_that_is_moved_away_leads_to_no_other(tree: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Its new place has folders of the same names."""
    moved = {2: "a", 3: "a/b", 4: "a/b/c"}[at]
    (tree.parent / "outside/a/b/c").mkdir(parents=True)
    meanwhile(monkeypatch, at, lambda: (tree / moved).rename(tree.parent / "outside/moved"))
    with pytest.raises(OSError, match="moved"):
        delete(tree, forced=True)
    assert (tree.parent / "outside/a/b/c").exists() and (tree.parent / "outside/a/file").exists()


def test_what_others_delete_meanwhile_is_no_error(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that is being deleted included."""

    def delete_below() -> None:
        for path in ("a/b/c", "a/b", "a"):
            (tree / path).rmdir()

    meanwhile(monkeypatch, 4, delete_below)
    delete(tree, forced=True)
    assert not tree.exists()


@pytest.mark.slow
def test_several_delete_the_same_tree(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"tree/{number % 7}/{number % 11}/{number}").mkdir(parents=True)

    def run(_: int) -> None:
        with suppress(FileNotFoundError):
            delete(tmp_path / "tree", forced=True)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, range(4)))
    assert not (tmp_path / "tree").exists()
