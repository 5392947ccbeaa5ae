"""Restore points in an object store, made and restored by the real restic."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from app.core.errors import RetryableError
from tests.integration import google_storage
from tests.integration.stores import point_at
from tests.ports import refusing_port
from tests.unit.workers.restore_points.conftest import UUID, Shelf
from workers.restore_points import prove_point, restic
from workers.restore_points.repository import repositories
from workers.runtime.base import ProofOrder, never


def test_a_point_is_made_looked_through_and_restored(shelf: Shelf, tmp_path: Path) -> None:
    """No lock is left, and nothing of the user is in any object."""
    shelf.write("app/which", "first")
    first = shelf.make()
    shelf.write("app/which", "canary")
    second = shelf.make(parent=first.id, full=True)
    assert (second.repository, second.broken, second.checked) == (1, (), True)
    for made, content in ((first, "first"), (second, "canary")):
        target = tmp_path / made.id
        assert shelf.restore(made.id, target).fell_back is False
        assert (target / "app/which").read_text() == content
    store = shelf.store
    stored = {path: store.read(path) for path in store.fs.find(f"{store.root}/{UUID}")}
    assert stored
    assert not [path for path, content in stored.items() if b"canary" in content or b"readme" in content]
    assert store.names(f"{repositories(store, UUID)[0].folder}/locks") == []


def test_damage_is_named_and_a_fresh_repository_follows(shelf: Shelf, tmp_path: Path) -> None:
    shelf.write("app/which", "first")
    broken = shelf.make()
    store = shelf.store
    for path in store.fs.find(f"{repositories(store, UUID)[0].folder}/data"):
        content = bytearray(store.read(path))
        content[len(content) // 2] ^= 1
        store.write(path, bytes(content))
    full = shelf.make(full=True)
    assert (full.broken, full.repository) == ((broken.id,), 2)
    assert shelf.restore(full.id, tmp_path / "target").fell_back is False


def test_a_drill_writes_nothing_and_finds_a_deleted_pack(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no lock: its credential may only read."""
    made = shelf.make()
    store = shelf.store
    wanted = ProofOrder(uuid=UUID, id=made.id, files=made.files, size=made.size)
    before = set(store.fs.find(f"{store.root}/{UUID}"))
    monkeypatch.setenv("GOOGLE_ACCESS_TOKEN", google_storage.READER)
    proof = prove_point(tmp_path / "scratch", shelf.url, shelf.keys, wanted, never)
    assert (proof.proven, proof.compared > 0) == (True, True), proof
    assert set(store.fs.find(f"{store.root}/{UUID}")) == before
    for path in store.fs.find(f"{repositories(store, UUID)[0].folder}/data"):
        store.remove(path)
    assert not prove_point(tmp_path / "scratch", shelf.url, shelf.keys, wanted, never).proven


def test_a_store_that_is_away_is_no_damage(
    shelf: Shelf, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is called broken for it. Google's is away for restic alone: gcsfs tries for half a minute each time."""
    monkeypatch.setattr(restic, "STORE_PATIENCE", 1.0)
    made = shelf.make()
    with refusing_port() as port:
        if kind == "gs":
            google_storage.point_restic_at(port, monkeypatch)
        else:
            point_at(kind, port, monkeypatch)
            fsspec.get_filesystem_class(kind).clear_instance_cache()
        with pytest.raises(RetryableError):
            shelf.make()
        with pytest.raises(RetryableError):
            shelf.restore(made.id, tmp_path / "target")
        with pytest.raises(RetryableError):
            wanted = ProofOrder(uuid=UUID, id=made.id, files=made.files, size=made.size)
            prove_point(tmp_path / "scratch", shelf.url, shelf.keys, wanted, never)
