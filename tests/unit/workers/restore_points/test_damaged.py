"""Bits flipped in a third of a store's files: every broken point is named, and no whole one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.core.errors import ArchiveError
from tests import sampling
from tests.unit.workers.restore_points.conftest import Shelf, flip

pytestmark = pytest.mark.slow

POINTS = 6


def expect_exact(shelf: Shelf, ids: list[str], broken: set[str], target: Path) -> None:
    """A point comes back as it was exactly if it was not named; else the newest whole one before it does, if any. One
    whose sidecar is damaged gives way to the newest of all."""
    unreadable = {each for each, sidecar in shelf.sidecars.read().items() if sidecar is None}
    for number, wanted in enumerate(ids):
        shutil.rmtree(target, ignore_errors=True)
        before = list(reversed(ids if wanted in unreadable else ids[: number + 1]))
        whole = [each for each in before if each not in broken]
        if not whole:
            with pytest.raises(ArchiveError):
                shelf.restore(wanted, target)
            continue
        restored = shelf.restore(wanted, target)
        assert (restored.id, restored.fell_back) == (whole[0], whole[0] != wanted)
        assert (target / "app/which").read_text() == shelf.made[restored.id]


@pytest.mark.parametrize("seed", sampling.seeds(sampling.times(15, 2), "flipped bits"))
def test_every_broken_point_is_named_and_the_next_one_is_whole(shelf: Shelf, seed: int, tmp_path: Path) -> None:
    dice = sampling.dice(f"flipped bits {seed}")
    ids = []
    for number in range(POINTS):
        shelf.write(f"app/file{number}", dice.randbytes(20_000))
        shelf.write("app/which", str(number))
        ids.append(shelf.make().id)
    files = sorted(path for path in shelf.folder.rglob("*") if path.is_file() and path.name != ".lock")
    for path in dice.sample(files, len(files) // 3):
        flip(path)
    full = shelf.make(full=True)
    assert full.checked
    assert full.id not in full.broken
    assert full.repository == 1 or full.broken
    expect_exact(shelf, [*ids, full.id], set(full.broken), tmp_path / "target")
