"""The holes of sparse files take neither time nor space, and come back as holes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.backups.store import BackupStore, session_of
from app.core.errors import ArchiveError, PermanentError
from tests.unit.workers.archive.test_archive import IDENTITY, NAME, NOW, Meddler, bring_back, leftovers
from workers.archive import Terms, sparse, write_backup
from workers.archive.format import FORMAT_VERSION
from workers.archive.sparse import Layout, layout_of
from workers.runtime.base import BackupSummary, never

MIB = 1 << 20
TIB = 1 << 40


def back_up(root: Path, store: BackupStore, **terms: Any) -> BackupSummary:
    return write_backup(root, store, NAME, IDENTITY, NOW, Terms(**terms))


def make(path: Path, size: int, data: dict[int, bytes]) -> None:
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, content in data.items():
            file.seek(offset)
            file.write(content)


def content(path: Path, at: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(at)
        return file.read(length)


def test_two_terabytes_of_hole_take_no_time_and_no_space(root: Path, store: BackupStore, tmp_path: Path) -> None:
    """Under limits that only its data fits into."""
    data = {0: b"begin", 1 * TIB: b"middle", 2 * TIB - 3: b"end"}
    make(root / "image", 2 * TIB, data)
    (root / "plain").write_text("plain")
    start = time.monotonic()
    summary = back_up(root, store, max_bytes=MIB)
    bring_back(store, tmp_path / "restored", max_bytes=MIB)
    assert time.monotonic() - start < 30
    restored = tmp_path / "restored" / "image"
    assert (restored.stat().st_size, (tmp_path / "restored" / "plain").read_text()) == (2 * TIB, "plain")
    assert {at: content(restored, at, len(each)) for at, each in data.items()} == data
    assert restored.stat().st_blocks * 512 < MIB
    assert summary.files == 2 and summary.content_bytes < MIB and summary.size < MIB


def test_a_file_of_nothing_but_hole_comes_back(root: Path, store: BackupStore, tmp_path: Path) -> None:
    """It is what `truncate` makes, and what once was verified and could not be restored."""
    make(root / "x", 21 << 30, {})
    back_up(root, store, max_bytes=0)
    bring_back(store, tmp_path / "restored", max_bytes=0)
    assert (tmp_path / "restored" / "x").stat().st_size == 21 << 30


@pytest.mark.parametrize(
    ("size", "stored"), [(64 * MIB - 1, 64 * MIB - 1), (64 * MIB + 4096, 4096)], ids=["few holes", "many"]
)
@pytest.mark.slow
def test_few_holes_are_stored_as_zeros(root: Path, store: BackupStore, tmp_path: Path, size: int, stored: int) -> None:
    """So that `unzip` gives nearly every file as it was; the limits count them."""
    make(root / "x", size, {0: b"x"})
    assert back_up(root, store).content_bytes == stored
    archive = str(tmp_path / "store" / session_of(NAME) / NAME)
    subprocess.run(["unzip", "-q", archive, "-d", str(tmp_path / "plain")], check=True, timeout=60)
    assert (tmp_path / "plain" / "x").stat().st_size == stored


def test_holes_shorter_than_a_block_are_no_pieces_of_their_own(tmp_path: Path) -> None:
    """A piece ends where the next hole of `HOLE` bytes begins."""
    make(tmp_path / "x", 200 * MIB, {0: b"x", 65536: b"x", 100 * MIB: b"x", 101 * MIB: b"x"})
    with open(tmp_path / "x", "rb") as file:
        found = layout_of(file.fileno(), 200 * MIB, 100, never)
    assert found == Layout(200 * MIB, ((0, 65536 + 4096), (100 * MIB, MIB + 4096)))


@pytest.mark.slow
def test_a_file_of_very_many_pieces_is_stored_with_zeros(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore, tmp_path: Path
) -> None:
    """The sidecar has room for so many pieces of all files, and each file takes one more. What doesn't fit counts in
    full, up to its last byte."""
    monkeypatch.setattr("workers.archive.write.PIECES", 6)
    monkeypatch.setattr("workers.archive.terms.PIECES", 6)
    pieces = {at * 2 * MIB: b"x" for at in range(8)}
    make(root / "a", 200 * MIB, {0: b"x", 190 * MIB: b"x"})
    make(root / "b", 300 * MIB, pieces)
    make(root / "c", 100 * MIB, {})
    summary = back_up(root, store)
    recorded = store.sidecar(NAME)["sparse"]
    assert {name: len(each["data"]) for name, each in recorded.items()} == {"a": 2, "b": 2}
    assert recorded["b"]["data"][-1] == [2 * MIB, 12 * MIB + 4096]
    assert summary.content_bytes == 3 * 4096 + 12 * MIB + 4096 + 100 * MIB
    bring_back(store, tmp_path / "restored")
    for at in pieces:
        assert content(tmp_path / "restored" / "b", at, 2) == b"x\0"
    store.delete(NAME)
    with pytest.raises(PermanentError, match=rf"{summary.content_bytes} bytes in 3 files"):
        back_up(root, store, max_bytes=summary.content_bytes - 1)


@pytest.mark.slow
def test_where_holes_can_not_be_told_a_file_is_read_whole(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore, tmp_path: Path
) -> None:
    """Some file systems know of none."""

    def ignorant(file: int, position: int, whence: int) -> int:
        raise OSError(22, "Invalid argument")

    make(root / "x", 70 * MIB, {})
    monkeypatch.setattr(sparse.os, "lseek", ignorant)
    assert back_up(root, store).content_bytes == 70 * MIB
    assert not store.sidecar(NAME)["sparse"]


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("size", [1 * MIB, 150 * MIB, 300 * MIB])
def test_a_sparse_file_that_changes_is_kept_as_it_was_read(
    monkeypatch: pytest.MonkeyPatch, root: Path, store: BackupStore, tmp_path: Path, size: int, always: bool
) -> None:
    """Cut or grown, once or always: the layout is that of what was read."""
    file = root / "x"
    make(file, 200 * MIB, {0: b"a" * 2 * MIB, 100 * MIB: b"b" * MIB})
    meddler = Meddler(monkeypatch, file)

    def meddle(count: int) -> None:
        if count == 1 or always:
            os.truncate(file, size + count % 2)

    meddler.before_read = meddle
    summary = back_up(root, store)
    bring_back(store, tmp_path / "restored")
    restored = tmp_path / "restored" / "x"
    assert summary.changed == (("x",) if always else ())
    assert content(restored, 0, MIB) == b"a" * MIB
    if not always:
        assert restored.stat().st_size == size + 1
        assert content(restored, 100 * MIB, MIB) == (b"b" * MIB if size > 100 * MIB else b"")


def shift(recorded: dict[str, Any]) -> None:
    recorded["x"]["data"][1][0] = 1


def cut(recorded: dict[str, Any]) -> None:
    recorded["x"]["size"] = 5


def forget(recorded: dict[str, Any]) -> None:
    del recorded["x"]["data"][1]


def rename(recorded: dict[str, Any]) -> None:
    recorded["folder/"] = recorded["x"]


def garble(recorded: dict[str, Any]) -> None:
    recorded["x"] = ["x"]


@pytest.mark.parametrize("spoil", [shift, cut, forget, rename, garble])
def test_a_sidecar_that_lies_about_holes_is_refused(
    root: Path, store: BackupStore, tmp_path: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    """Data would land in the wrong place."""
    make(root / "x", 200 * MIB, {0: b"x", 100 * MIB: b"x"})
    (root / "folder").mkdir()
    back_up(root, store)
    sidecar = store.sidecar(NAME)
    with store.open(NAME) as stored:
        zipped = stored.read()
    spoil(sidecar["sparse"])
    store.delete(NAME)
    with store.writing(NAME) as part:
        part.write(zipped)
        part.commit(sidecar)
    (tmp_path / "session").mkdir()
    with pytest.raises(ArchiveError):
        bring_back(store, tmp_path / "session" / "app")
    assert not list((tmp_path / "session").iterdir())


def test_a_backup_of_a_later_release_is_not_guessed_at(root: Path, store: BackupStore, tmp_path: Path) -> None:
    """What it says beside the zip may matter."""
    with store.writing(NAME) as part:
        part.commit({**described(root, tmp_path), "versions": {"archive": FORMAT_VERSION + 1}})
    with pytest.raises(ArchiveError, match="later release"):
        bring_back(store, tmp_path / "restored")
    assert not leftovers(tmp_path)


def described(root: Path, tmp_path: Path) -> dict[str, Any]:
    """The sidecar of an empty file that passes for a zip."""
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    return {"name": NAME, "size": 0, "sha256": digest}
