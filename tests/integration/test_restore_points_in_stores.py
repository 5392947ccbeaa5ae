"""Restore points in an object store, made and restored by the real restic.

At Google's everybody has the token of a Job, and asks for nothing beyond its access boundary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import fsspec
import pytest

from app.core.errors import RetryableError
from app.core.storage.archive_keys import ArchiveKeys, new_key
from tests.integration import google_storage
from tests.integration.stores import BUCKET, point_at, server
from tests.ports import free_port
from tests.unit.workers.restore_points.conftest import UUID, Shelf
from tests.unit.workers.restore_points.killer import Killer
from workers.restore_points import making, prove_point, restic
from workers.restore_points.repository import repositories
from workers.runtime.base import ProofOrder, never


@contextmanager
def amazon(folder: Path, uuid: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    port = free_port()
    point_at("s3", port, monkeypatch)
    with server("s3", port, folder / "server.log"):
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield f"s3://{BUCKET}/backups"


STORES = {"s3": amazon, "gs": google_storage.running}


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shelf(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """A session whose restore points are in an object store."""
    client = fsspec.get_filesystem_class(kind)
    client.clear_instance_cache()
    with STORES[kind](tmp_path, UUID, monkeypatch) as url:
        made = Shelf(tmp_path / "volume", url, ArchiveKeys(new_key()).session(UUID))
        made.write("app/readme", "the project")
        yield made
    client.clear_instance_cache()


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
    if kind == "gs":
        google_storage.point_restic_at(free_port(), monkeypatch)
    else:
        point_at(kind, free_port(), monkeypatch)
        fsspec.get_filesystem_class(kind).clear_instance_cache()
    with pytest.raises(RetryableError):
        shelf.make()
    with pytest.raises(RetryableError):
        shelf.restore(made.id, tmp_path / "target")
    with pytest.raises(RetryableError):
        wanted = ProofOrder(uuid=UUID, id=made.id, files=made.files, size=made.size)
        prove_point(tmp_path / "scratch", shelf.url, shelf.keys, wanted, never)
