"""Killed at any moment of a point, a prune, a check or a restore, a session loses nothing and no lock stays."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from app.core.errors import BackupNotFound
from tests import sampling
from tests.unit.workers.restore_points.conftest import UUID, Shelf
from tests.unit.workers.restore_points.killer import Killer
from workers.restore_points.repository import repositories

ROUNDS = sampling.times(20, 3)

pytestmark = pytest.mark.slow


def expect_whole(shelf: Shelf, contents: dict[str, str], tmp_path: Path) -> None:
    """Every point that is listed brings back what was saved, and no lock is left once another was made."""
    listed = shelf.sidecars.ids()
    assert set(listed) <= contents.keys()
    for number, each in enumerate(listed):
        target = tmp_path / f"target-{number}"
        restored = shelf.restore(each, target)
        assert (restored.id, restored.fell_back) == (each, False)
        assert (target / "app/which").read_text() == contents[each]


@pytest.mark.parametrize("full", [False, True], ids=["point", "check and prune"])
def test_a_killed_maker_leaves_no_half_point_and_no_lock(shelf: Shelf, full: bool, tmp_path: Path) -> None:
    killer = Killer(shelf, f"killed maker {full}")
    contents: dict[str, str] = {}

    def order(which: str) -> str:
        shelf.write("app/which", which)
        shelf.write("app/large", killer.dice.randbytes(2_000_000))
        made = asdict(shelf.order()) | {"full": full, "keep": (4, 0, 0, 0)}
        contents[made["id"]] = which
        return json.dumps(made)

    took = killer.run("make", shelf.volume, order("the first"))
    kept = set(shelf.sidecars.ids())
    assert len(kept) == 1
    for number in range(ROUNDS):
        killer.run("make", shelf.volume, order(f"killed {number}"), within=took)
    killer.run("make", shelf.volume, order("the last"))
    assert [list(Path(each.folder).glob("locks/*")) for each in repositories(shelf.store, UUID)] == [[]]
    assert len(shelf.sidecars.ids()) <= 4
    expect_whole(shelf, contents, tmp_path)
    assert shelf.make(full=True).broken == ()
    assert len(repositories(shelf.store, UUID)[0].snapshots()) == len(shelf.sidecars.ids())


def test_a_killed_restore_leaves_the_old_files_or_all_the_new_ones(shelf: Shelf) -> None:
    killer = Killer(shelf, "killed restore")
    parts = ("app", "home", ".session")
    for number in range(400):
        shelf.write(f"app/folder/{number}", killer.dice.randbytes(4_000))
    ids = {}
    for which in ("one", "two"):
        for part in parts:
            shelf.write(f"{part}/which", which)
        ids[which] = shelf.make().id
    took = killer.run("restore", shelf.volume, ids["one"])
    for number in range(ROUNDS):
        wanted = ("two", "one")[number % 2]
        before = {(shelf.volume / part / "which").read_text() for part in parts}
        killer.run("restore", shelf.volume, ids[wanted], within=took)
        # The restore is still due, and so repeated: this one fails, and must leave one or the other.
        with pytest.raises(BackupNotFound):
            replace(shelf, url=f"{shelf.url}-none").restore(ids[wanted], shelf.volume)
        after = {(shelf.volume / part / "which").read_text() for part in parts}
        assert after in (before, {wanted})
        assert len(list((shelf.volume / "app/folder").iterdir())) == 400
        assert sorted(os.listdir(shelf.volume)) == [".session", "app", "home"]
    killer.run("restore", shelf.volume, ids["two"])
    assert {(shelf.volume / part / "which").read_text() for part in parts} == {"two"}
    assert shelf.make().broken == ()


def test_a_killed_drill_changes_nothing_and_the_next_one_clears_up(shelf: Shelf, tmp_path: Path) -> None:
    """No lock of it stays, and what it restored goes with the next."""
    killer = Killer(shelf, "killed drill")
    for number in range(400):
        shelf.write(f"app/folder/{number}", killer.dice.randbytes(4_000))
    made = shelf.make()
    order = json.dumps({"uuid": UUID, "id": made.id, "files": made.files, "size": made.size})
    scratch = tmp_path / "scratch"
    before = shelf.stored()
    took = killer.run("prove", scratch, order)
    for _ in range(ROUNDS):
        killer.run("prove", scratch, order, within=took)
        assert shelf.stored() == before
    killer.run("prove", scratch, order)
    assert not scratch.exists()
    assert shelf.make(parent=made.id).id != made.id, "no lock keeps a maker out"
