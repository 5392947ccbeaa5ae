"""A restore point gives the files back as they were, all or nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from app.core.errors import ArchiveError, Superseded
from tests.unit.workers.archive.conftest import overtaken
from tests.unit.workers.restore_points.conftest import Shelf

pytestmark = pytest.mark.slow


def tree(volume: Path) -> dict[bytes, tuple[object, ...]]:
    """What a volume holds: kinds, modes, times, contents and links by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    for parent, folders, files in os.walk(os.fsencode(volume)):
        for name in folders + files:
            path = os.path.join(parent, name)
            info = os.lstat(path)
            content: object = b""
            if stat.S_ISREG(info.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, os.fsencode(volume))] = (info.st_mode, info.st_mtime_ns, content)
    return found


def test_all_kinds_of_files_come_back_as_they_were(shelf: Shelf, tmp_path: Path) -> None:
    """Hard names, links that lead outside, modes and times; a link is kept and never followed."""
    app = shelf.volume / "app"
    (app / "out").symlink_to("/etc/passwd")
    (app / "up").symlink_to("../../../..")
    (app / "folder-link").symlink_to("/etc")
    for name in (b"bad\xff name", b"new\nline", b"[a]*?$HOME", "naïve 文".encode(), b"x" * 255):
        Path(os.fsdecode(os.path.join(os.fsencode(app), name))).write_bytes(name)
    (app / "run").write_text("#!/bin/sh")
    (app / "run").chmod(0o751)
    (app / "locked").mkdir()
    (app / "locked/file").write_text("x")
    os.utime(app / "locked/file", ns=(1, 123_456_789_012_345_678))
    (app / "locked").chmod(0o500)
    os.mkfifo(app / "pipe")
    os.link(app / "run", app / "same")
    made = shelf.make()
    target = tmp_path / "target"
    assert shelf.restore(made.id, target).fell_back is False
    assert tree(target) == tree(shelf.volume)
    assert (target / "app/run").stat().st_ino == (target / "app/same").stat().st_ino


def test_it_replaces_what_is_there_and_leaves_nothing_else(shelf: Shelf) -> None:
    shelf.write("app/which", "first")
    first = shelf.make()
    shelf.write("app/which", "second")
    shelf.write("app/later", "written since")
    shelf.write(".restoring-x/new/app/half", "left by an interrupted restore")
    restored = shelf.restore(first.id, shelf.volume)
    assert (restored.id, restored.created_at, restored.fell_back) == (first.id, first.created_at, False)
    assert sorted(os.listdir(shelf.volume / "app")) == ["readme", "which"]
    assert (shelf.volume / "app/which").read_text() == "first"
    assert sorted(os.listdir(shelf.volume)) == [".session", "app", "home"]


def test_a_part_that_the_point_lacks_is_empty(shelf: Shelf) -> None:
    """A conversation begun since belongs to files that are no more."""
    (shelf.volume / ".session/history.json").unlink()
    (shelf.volume / ".session").rmdir()
    made = shelf.make()
    shelf.write(".session/history.json", "[1]")
    shelf.restore(made.id, shelf.volume)
    assert os.listdir(shelf.volume / ".session") == []


def test_another_user_gets_the_project_only(shelf: Shelf, tmp_path: Path) -> None:
    """With a folder in it that only has the conversation's name."""
    shelf.write("app/.session/metadata.json", "{}")
    made = shelf.make()
    target = tmp_path / "target"
    (target / "home").mkdir(parents=True)
    (target / "home/own").write_text("the other user's")
    shelf.restore(made.id, target, user_id="bob@example.com")
    assert sorted(os.listdir(target)) == ["app", "home"]
    assert os.listdir(target / "home") == ["own"]
    assert sorted(os.listdir(target / "app")) == [".session", "readme"]


def test_caches_and_what_the_user_ignores_are_left_out(shelf: Shelf, tmp_path: Path) -> None:
    shelf.write("app/.workspaceignore", "*.log\n!keep.log\nbuild/\n/data/raw\n[x]\n$HOME\n")
    left_out = ("app/a.log", "app/deep/b.log", "app/build/out", "app/data/raw/1", "app/[x]", "app/$HOME")
    caches = ("home/.cache/x", "app/src/__pycache__/x.pyc", "home/.npm/_cacache/x", "app/tagged/x")
    kept = ("app/keep.log", "app/node_modules/x", "app/sub/data/raw/1", "app/x", "home/.npmrc", "app/sub/build")
    for path in left_out + caches + kept:
        shelf.write(path, "x")
    shelf.write("app/tagged/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n")
    target = tmp_path / "target"
    shelf.restore(shelf.make().id, target)
    assert [path for path in kept if not (target / path).exists()] == []
    assert [path for path in left_out + caches if (target / path).exists()] == []


def test_a_broken_point_gives_way_to_the_newest_whole_one_before_it(shelf: Shelf, tmp_path: Path) -> None:
    shelf.write("app/which", "whole")
    whole = shelf.make()
    for which in ("broken", "broken too"):
        shelf.write("app/which", which)
        wanted = shelf.make_broken()
    shelf.write("app/which", "later")
    shelf.make(broken=(wanted.id,))
    restored = shelf.restore(wanted.id, tmp_path / "target")
    assert (restored.id, restored.created_at, restored.fell_back) == (whole.id, whole.created_at, True)
    assert (tmp_path / "target/app/which").read_text() == "whole"
    with pytest.raises(ArchiveError, match="None of this session's restore points since its newest backup is whole"):
        shelf.restore(wanted.id, tmp_path / "other", newer_than=whole.created_at)
    assert os.listdir(tmp_path / "other") == []
    assert shelf.restore(wanted.id, tmp_path / "other", newer_than=whole.created_at - 1).id == whole.id


def test_a_pack_that_is_gone_is_not_waited_for(shelf: Shelf, tmp_path: Path) -> None:
    """restic would look for it for 43 s."""
    made = shelf.make()
    for pack in shelf.folder.glob("repository-1/data/*/*"):
        pack.unlink()
    with pytest.raises(ArchiveError, match="None of this session's restore points is whole"):
        shelf.restore(made.id, tmp_path / "target")
    assert os.listdir(tmp_path / "target") == []


def test_a_lost_sidecar_gives_way_to_the_newest_point(shelf: Shelf, tmp_path: Path) -> None:
    newest = shelf.make()
    lost = shelf.make()
    shelf.sidecars.remove(lost.id)
    assert shelf.restore(lost.id, tmp_path / "target").id == newest.id
    with pytest.raises(ArchiveError):
        shelf.restore(lost.id, tmp_path / "target", newer_than=newest.created_at)


def test_a_point_over_the_limits_is_refused_before_anything_is_written(shelf: Shelf, tmp_path: Path) -> None:
    made = shelf.make()
    for limits in ((25, 100), (100, 2)):
        with pytest.raises(ArchiveError, match="at most"):
            shelf.restore(made.id, shelf.volume, limits=limits)
    assert sorted(os.listdir(shelf.volume)) == [".session", "app", "home"]


def test_a_restore_nobody_wants_any_more_leaves_the_files_as_they_are(shelf: Shelf) -> None:
    made = shelf.make()
    shelf.write("app/readme", "written since")
    before = tree(shelf.volume)
    with pytest.raises(Superseded):
        shelf.restore(made.id, shelf.volume, check=overtaken)
    assert tree(shelf.volume) == before
