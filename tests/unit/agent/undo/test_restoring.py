"""What was changed since a point is put back, byte for byte, whatever it was; killed anywhere, it is repeated."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from pathlib import Path

import pytest

from app.agent.undo import tree
from app.agent.undo.restoring import NoPoint, stage, swap
from app.agent.undo.saving import Limits, NoRoom
from tests.deep_tree import DeepTrees
from tests.unit.agent.fakes import break_after
from tests.unit.agent.undo.trees import LIMITS, change, grow, saved, state_of, store_of, undone


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.slow
def test_random_changes_are_undone(root: Path, beside: Path, seed: int) -> None:
    """Each of several points, the older ones after the newer ones."""
    rnd = random.Random(seed)
    grow(root, rnd, 40)
    states = {}
    for n in range(4):
        saved(root, beside, f"m{n}")
        states[f"m{n}"] = state_of(root)
        change(root, rnd, 15)
    for message_id in ("m3", "m1", "m0"):
        undone(root, beside, message_id)
        assert state_of(root) == states[message_id]
        assert undone(root, beside, message_id).files == 0
        change(root, rnd, 10)


def test_a_deep_tree_made_since_a_point_goes(root: Path, beside: Path, deep_trees: DeepTrees) -> None:
    """Deeper than the stack, and than a path can tell."""
    saved(root, beside, "m")
    deep_trees(root / "deep")
    undone(root, beside, "m")
    assert list(root.iterdir()) == []


def test_ignored_files_and_nested_repositories_come_back(root: Path, beside: Path) -> None:
    """A point knows nothing of .gitignore, .gitattributes, or of what a folder .git means."""
    git = {"cwd": root, "check": True, "capture_output": True}
    subprocess.run(["git", "init", "-q", "."], **git)  # type: ignore[call-overload]
    subprocess.run(["git", "init", "-q", "inner"], **git)  # type: ignore[call-overload]
    (root / ".gitignore").write_text("node_modules\n")
    (root / ".gitattributes").write_text("* text eol=crlf filter=evil\n")
    (root / "node_modules").mkdir()
    for path in ("node_modules/x.js", "inner/own.txt", "text.txt"):
        (root / path).write_bytes(b"one\r\ntwo\n")
    (root / "empty").mkdir()
    saved(root, beside, "m")
    before = state_of(root)
    subprocess.run(["rm", "-rf", "node_modules", "inner", "empty", "text.txt", ".git"], cwd=root, check=True)
    undone(root, beside, "m")
    assert state_of(root) == before


def test_what_replaced_a_folder_goes(root: Path, beside: Path, tmp_path: Path) -> None:
    """A folder that became a link is a folder again, and what the link leads to stays as it is."""
    (root / "folder").mkdir()
    (root / "folder" / "file").write_text("mine")
    saved(root, beside, "m")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("another's")
    (root / "folder" / "file").unlink()
    (root / "folder").rmdir()
    (root / "folder").symlink_to(elsewhere)
    undone(root, beside, "m")
    assert (root / "folder" / "file").read_text() == "mine"
    assert (elsewhere / "file").read_text() == "another's"


def test_folders_that_nobody_may_write_are_no_obstacle(root: Path, beside: Path) -> None:
    (root / "locked").mkdir()
    (root / "locked" / "file").write_text("one")
    (root / "locked").chmod(0o555)
    saved(root, beside, "m")
    before = state_of(root)
    (root / "locked").chmod(0o755)
    (root / "locked" / "file").write_text("two")
    (root / "locked" / "new").mkdir(mode=0o500)
    undone(root, beside, "m")
    assert state_of(root) == before


def test_sockets_and_pipes_are_left_alone(root: Path, beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        os.mkfifo("pipe")
        saved(root, beside, "m")
        Path("file").touch()
        undone(root, beside, "m")
    assert sorted(os.listdir(root)) == ["pipe", "socket"]


def test_a_file_over_the_bound_is_told_and_left_alone(root: Path, beside: Path) -> None:
    (root / "large").write_bytes(b"x" * 5_000)
    point = saved(root, beside, "m", LIMITS._replace(file_bytes=4_999))
    assert point is not None and point.left_out == ["large"] and point.left_out_count == 1
    (root / "large").write_bytes(b"y" * 5_000)
    assert undone(root, beside, "m").lost == 0
    assert (root / "large").read_bytes() == b"y" * 5_000
    (root / "large").unlink()
    assert undone(root, beside, "m").lost == 1


def test_an_unreadable_folder_keeps_its_content(
    root: Path, beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be seen at the point is not taken for new later."""
    (root / "shut").mkdir()
    (root / "shut" / "file").touch()
    (root / "shut").chmod(0)
    with monkeypatch.context() as patched:
        if os.geteuid() == 0:  # As whom nothing is shut.
            find = tmp_path / "find"
            bound = "-dac_override,-dac_read_search"
            find.write_text(f'#!/bin/sh\nexec setpriv --inh-caps={bound} --bounding-set={bound} {tree.FIND} "$@"\n')
            find.chmod(0o755)
            patched.setattr(tree, "FIND", str(find))
        point = saved(root, beside, "m")
    (root / "shut").chmod(0o700)
    assert point is not None and point.left_out == ["shut"]
    undone(root, beside, "m")
    assert (root / "shut" / "file").exists()


def test_only_the_newest_points_are_kept_and_their_content_goes(root: Path, beside: Path) -> None:
    for n in range(5):
        (root / "file").write_bytes(os.urandom(500_000))
        saved(root, beside, f"m{n}", LIMITS._replace(points=2))
    with store_of(beside) as store:
        assert [point.message_id for point in store.points()] == ["m4", "m3"]
    assert (beside / "points.sqlite").stat().st_size < 1_300_000
    with pytest.raises(NoPoint):
        undone(root, beside, "m2")


def test_the_oldest_points_make_room(root: Path, beside: Path) -> None:
    limits = Limits(20, 1_000_000, 2_000_000)
    for n in range(5):
        (root / "file").write_bytes(os.urandom(600_000))
        saved(root, beside, f"m{n}", limits)
    with store_of(beside) as store:
        assert [point.message_id for point in store.points()] == ["m4", "m3", "m2"]
    for n in range(4):
        (root / f"more{n}").write_bytes(os.urandom(600_000))
    with pytest.raises(NoRoom):
        saved(root, beside, "m9", limits)


def test_content_is_stored_once(root: Path, beside: Path) -> None:
    """A file that is moved, copied or given another mode costs no second copy."""
    (root / "a").write_bytes(os.urandom(1_500_000))
    saved(root, beside, "m0")
    size = (beside / "points.sqlite").stat().st_size
    (root / "a").rename(root / "b")
    (root / "c").write_bytes((root / "b").read_bytes())
    (root / "b").chmod(0o755)
    saved(root, beside, "m1")
    assert (beside / "points.sqlite").stat().st_size - size < 100_000


class Killed(BaseException):
    """Stands for SIGKILL: no handler of an error catches it."""


CHANGES = [(os, name) for name in ("rename", "unlink", "mkdir", "chmod", "utime", "symlink", "fchmod", "rmdir")]
"""By which the file system is changed."""


@pytest.mark.slow
def test_a_restore_that_is_killed_at_any_step_is_repeated(root: Path, tmp_path: Path, beside: Path) -> None:
    """In the first step nothing changes; the second one completes."""
    rnd = random.Random(7)
    grow(root, rnd, 25)
    saved(root, beside, "m")
    before = state_of(root)
    at, killed = 0, True
    while killed and at < 500:
        at, killed = at + 1, False
        change(root, rnd, 12)
        changed, staged = state_of(root), False
        try:
            with store_of(beside) as store, pytest.MonkeyPatch.context() as patched:
                break_after(patched, at - 1, Killed(), *CHANGES)
                stage(root, store, beside, "m")
                staged = True
                swap(root, beside, "m")
        except Killed:
            killed = True
        if not staged:
            assert state_of(root) == changed
            undone(root, beside, "m")
        else:
            swap(root, beside, "m")
        assert state_of(root) == before, at
    assert at > 20
