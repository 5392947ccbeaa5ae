"""A drill restores a point to a scratch place, compares each file with the manifest, and finds what is damaged."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import NoSpace, RetryableError, Superseded
from tests.deep_tree import BEYOND_STACK, DeepTrees
from tests.unit.workers.archive.conftest import overtaken
from tests.unit.workers.restore_points.conftest import UUID, Shelf, flip
from workers.restore_points import manifest, proving
from workers.restore_points.manifest import DamagedManifest, Entry, Manifests, decoded, encoded, manifest_of, stamp
from workers.restore_points.repository import repositories
from workers.runtime.base import PointSummary, Proof, ProofOrder, never


class Drill:
    """Drills of a shelf's points."""

    def __init__(self, shelf: Shelf, scratch: Path) -> None:
        self.shelf = shelf
        self.scratch = scratch

    def prove(self, point: PointSummary, check: Callable[[], None] = never, **order: int) -> Proof:
        told = {"files": point.files, "size": point.size} | order
        asked = ProofOrder(uuid=UUID, id=point.id, **told)
        try:
            return proving.prove_point(self.scratch, self.shelf.url, self.shelf.keys, asked, check)
        finally:
            assert not self.scratch.exists(), "the drill left its scratch place"


@pytest.fixture
def drill(shelf: Shelf, tmp_path: Path) -> Drill:
    return Drill(shelf, tmp_path / "scratch")


@pytest.mark.slow
def test_a_deep_tree_is_proven(shelf: Shelf, drill: Drill, deep_trees: DeepTrees) -> None:
    deep_trees(shelf.volume / "app/deep", BEYOND_STACK)
    proof = drill.prove(shelf.make())
    assert (proof.failure, proof.different) == ("", 0) and proof.compared > BEYOND_STACK


@pytest.mark.slow
def test_a_whole_point_is_proven_and_nothing_is_written(shelf: Shelf, drill: Drill) -> None:
    """Also odd names, links, an empty folder, a read-only one, and holes."""
    shelf.write(os.fsdecode(b"app/\xff name\n"), "odd")
    shelf.write("app/locked/file", "inside")
    (shelf.volume / "app/empty").mkdir()
    (shelf.volume / "app/link").symlink_to("nowhere")
    with (shelf.volume / "app/holes").open("wb") as file:
        file.truncate(1_000_000)
    (shelf.volume / "app/locked").chmod(0o500)
    (shelf.volume / "app/readme").chmod(0o640)
    made = shelf.make()
    before = shelf.stored()
    proof = drill.prove(made)
    assert proof.proven, proof
    # Beside these seven: app/locked, app/empty.
    assert (proof.files, proof.size, proof.compared) == (made.files, made.size, 9)
    assert shelf.stored() == before
    assert set(proof.ms) == {"restore", "compare"}


@pytest.mark.slow
def test_content_is_read_once_for_all_points(shelf: Shelf, drill: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a second point only what changed, unless it looks at everything."""
    read: list[str] = []
    digest = manifest.digest

    def noted(path: bytes, *arguments: Any) -> str:
        read.append(Path(os.fsdecode(path)).name)
        return digest(path, *arguments)

    monkeypatch.setattr(manifest, "digest", noted)
    first = shelf.make()
    read.clear()
    shelf.write("app/new", "new")
    second = shelf.make(parent=first.id)
    assert read == ["new"]
    assert len(list(shelf.folder.glob("points/*.manifest"))) == 1, "one manifest, of the newest point"
    read.clear()
    third = shelf.make(parent=second.id, full=True)
    assert sorted(read) == [".bashrc", "history.json", "new", "readme"]
    assert drill.prove(third).proven
    assert drill.prove(second).proven, "an older point has no manifest, and comes back all the same"


def test_a_manifest_follows_no_link_that_took_a_folders_place(tmp_path: Path) -> None:
    """What lies behind it is as it was seen, since a workspace moved it there or links to it."""
    volume = tmp_path / "volume"
    (volume / "app/folder").mkdir(parents=True)
    (volume / "app/folder/file").write_text("content")
    seen = {path: stamp(os.lstat(volume / os.fsdecode(path))) for path in (b"app/folder", b"app/folder/file")}
    assert set(manifest_of(volume, seen, {}, never)) == set(seen)
    (volume / "app/folder").rename(tmp_path / "elsewhere")
    (volume / "app/folder").symlink_to(tmp_path / "elsewhere")
    assert manifest_of(volume, seen, {}, never) == {}


def test_of_a_file_that_grew_a_manifest_reads_no_more_than_was_seen(tmp_path: Path) -> None:
    """It may have grown to any size, of which nothing is on the disk."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/file").write_text("content")
    seen = {b"app/file": stamp(os.lstat(tmp_path / "app/file"))}
    os.truncate(tmp_path / "app/file", 1 << 40)
    assert manifest_of(tmp_path, seen, {}, never) == {}


@pytest.mark.slow
def test_what_changes_while_a_point_is_made_is_not_asked_for(shelf: Shelf, drill: Drill) -> None:
    shelf.write("app/busy", "before")
    turns = iter(range(10**9))

    def check() -> None:
        # Not at the first look, which is before the walk.
        if next(turns) == 2:
            shelf.write("app/busy", "after")

    made = shelf.make(check)
    kept = Manifests(shelf.sidecars).read(made.id)
    assert kept is not None
    assert b"app/readme" in kept
    assert b"app/busy" not in kept
    assert drill.prove(made).proven


def empty(folder: Path) -> None:
    folder = folder.resolve()
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "damage", "failure", "fresh", "forgotten"),
    [
        ("repository-*/data/*/*", flip, "can't be restored", 2, False),
        ("repository-*/data/*/*", Path.unlink, "can't be restored", 2, False),
        ("repository-*/snapshots/*", Path.unlink, "can't be restored", 2, False),
        ("points/*.json", Path.unlink, "sidecar is missing", 2, True),
        ("points/*.json", flip, "sidecar is damaged", 2, False),
        ("points/*.manifest", flip, "manifest is damaged", 2, False),
        ("points/*.manifest", Path.unlink, "manifest is missing", 2, False),
        ("repository-*/keys/*", Path.unlink, "can't be opened", 2, False),
        (f"../{UUID}", empty, "sidecar is missing", 1, True),
    ],
)
def test_damage_is_found_and_the_next_point_is_whole_in_a_fresh_repository(
    shelf: Shelf,
    drill: Drill,
    tmp_path: Path,
    what: str,
    damage: Callable[[Path], None],
    failure: str,
    fresh: int,
    forgotten: bool,
) -> None:
    """Of several files the largest is damaged."""
    shelf.write("app/which", "the only one")
    shelf.write("app/large", os.urandom(200_000))
    first = shelf.make()
    assert drill.prove(first).proven
    damage(max(shelf.folder.glob(what), key=lambda each: each.stat().st_size))
    proof = drill.prove(first)
    assert not proof.proven
    assert failure in proof.failure
    # As the service asks for it.
    second = shelf.make(broken=(first.id,), fresh=True)
    assert second.repository == fresh
    assert [each.number for each in repositories(shelf.store, UUID)][-1] == fresh
    assert (first.id in second.forgotten) is forgotten
    assert drill.prove(second).proven
    shelf.restore(second.id, tmp_path / "target")
    assert (tmp_path / "target/app/which").read_text() == "the only one"
    third = shelf.make(parent=second.id, broken=() if forgotten else (first.id,))
    assert third.repository == fresh, "one fresh repository is enough"


@pytest.mark.slow
def test_what_differs_from_the_manifest_is_named_a_few_times(shelf: Shelf, drill: Drill) -> None:
    """As if the engine had given back something else than what was there."""
    for number in range(10):
        shelf.write(f"app/{number}", "there")
    made = shelf.make()
    manifests = Manifests(shelf.sidecars)
    kept = manifests.read(made.id)
    assert kept is not None
    wrong = {path: Entry(each.stamp, "0" * 64) if path[4:].isdigit() else each for path, each in kept.items()}
    wrong[b"app/lost"] = wrong[b"app/readme"]
    manifests.write(made.id, wrong)
    proof = drill.prove(made)
    assert (proof.failure, proof.different, len(proof.differences)) == ("", 11, proving.MOST_DIFFERENCES)
    assert all(each.endswith(": another content") for each in proof.differences)


def test_how_a_file_differs(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    file.chmod(0o644)
    entry = Entry(stamp(file.lstat()), "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed")
    where = os.fsencode(file)
    assert entry.differs(where, never) == ""
    file.write_text("two")
    assert entry.differs(where, never) == "another content"
    file.write_text("three")
    assert entry.differs(where, never) == "another size"
    file.chmod(0o600)
    assert entry.differs(where, never) == "another mode"
    file.unlink()
    assert entry.differs(where, never) == "missing"
    file.mkdir()
    assert entry.differs(where, never) == "another kind"
    link = Entry((stat.S_IFLNK | 0o777, 0, 0, 0, 0), "there")
    file.rmdir()
    file.symlink_to("elsewhere")
    assert link.differs(where, never) == "another target"


def test_a_manifest_is_read_as_it_was_written() -> None:
    listed = {b"app/\xff\n": Entry((1, 2, 3, 4, 5), "told"), b"app/link": Entry((0, 0, 0, 0, 0), "\udcff")}
    assert decoded(encoded(listed)) == listed
    with pytest.raises(DamagedManifest):
        decoded(b"nothing")


def test_a_store_that_is_away_breaks_no_point(shelf: Shelf, drill: Drill) -> None:
    made = shelf.make()
    aside = shelf.folder.with_name("aside")
    shelf.folder.rename(aside)
    with pytest.raises(RetryableError):
        drill.prove(made)
    aside.rename(shelf.folder)
    assert drill.prove(made).proven


def test_without_room_nothing_is_tried(shelf: Shelf, drill: Drill) -> None:
    made = shelf.make()
    with pytest.raises(NoSpace, match="A drill needs"):
        drill.prove(made, size=10**18)


def test_a_cancelled_drill_leaves_nothing(shelf: Shelf, drill: Drill) -> None:
    made = shelf.make()
    before = shelf.stored()
    calls = count()
    with pytest.raises(Superseded):
        drill.prove(made, lambda: overtaken() if next(calls) == 2 else None)
    assert shelf.stored() == before


def test_a_read_only_store_is_enough(shelf: Shelf, drill: Drill) -> None:
    """A lock that can't be taken for writing is shared for reading."""
    made = shelf.make()
    folders = [shelf.folder, *(each for each in shelf.folder.rglob("*") if each.is_dir())]
    for each in folders:
        each.chmod(0o500)
    try:
        assert drill.prove(made).proven
    finally:
        for each in folders:
            each.chmod(0o700)
