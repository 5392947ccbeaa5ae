"""Locks of makers that were killed, in a store of objects, where no other maker sees that they are dead."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from tests.unit.workers.restore_points.conftest import UUID, Shelf
from tests.unit.workers.restore_points.killer import Killer
from workers.restore_points import making
from workers.restore_points.repository import repositories


@pytest.mark.parametrize(("locks", "stays"), [(1, True), (2, False)], ids=["backup", "prune"])
def test_a_lock_of_a_killed_maker_keeps_no_point_from_being_made_and_goes_with_its_lease(
    shelf: Shelf, locks: int, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a prune, which keeps all others out, goes at once, and one of a backup keeps only prunes out until then.
    A full look takes two locks in a row."""
    killer = Killer(shelf, f"lock {locks}")
    shelf.write("app/large", killer.dice.randbytes(1_000_000))
    shelf.make()
    store, (repository,) = shelf.store, repositories(shelf.store, UUID)
    seen: set[str] = set()

    def held() -> list[str]:
        return store.names(f"{repository.folder}/locks")

    def packs() -> set[str]:
        store.fs.invalidate_cache()
        return set(store.fs.find(f"{repository.folder}/data"))

    def locked() -> bool:
        seen.update(held())
        return len(seen) == locks

    killer.run("make", shelf.volume, json.dumps(asdict(shelf.order()) | {"full": locks == 2}), when=locked)
    left = held()
    assert len(left) == 1, "no lock was left"

    before = packs()
    shelf.write("app/large", killer.dice.randbytes(1_000_000))
    made = shelf.make(full=True, keep=(1, 0, 0, 0))
    assert (made.repository, made.broken) == (1, ())
    assert held() == (left if stays else [])
    assert (before <= packs()) == stays

    monkeypatch.setattr(making, "LOCK_LEASE", 0.0)
    shelf.make(full=True, keep=(1, 0, 0, 0))
    assert held() == []
    assert not before <= packs()
