"""The holes of sparse files take neither time nor space, and come back as holes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ArchiveError, PermanentError
from tests.unit.workers.archive.conftest import NAME, Bench, meddle
from workers.archive import sparse
from workers.archive.format import FORMAT_VERSION
from workers.archive.sparse import Layout, layout_of
from workers.runtime.base import never

MIB = 1 << 20
TIB = 1 << 40


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


def test_two_terabytes_of_hole_take_no_time_and_no_space(bench: Bench) -> None:
    """Under limits that only its data fits into."""
    data = {0: b"begin", 1 * TIB: b"middle", 2 * TIB - 3: b"end"}
    make(bench.root / "image", 2 * TIB, data)
    (bench.root / "plain").write_text("plain")
    start = time.monotonic()
    summary = bench.back_up(max_bytes=MIB)
    bench.bring_back(max_bytes=MIB)
    assert time.monotonic() - start < 30
    restored = bench.target / "image"
    assert (restored.stat().st_size, (bench.target / "plain").read_text()) == (2 * TIB, "plain")
    assert {at: content(restored, at, len(each)) for at, each in data.items()} == data
    assert restored.stat().st_blocks * 512 < MIB
    assert summary.files == 2 and summary.content_bytes < MIB and summary.size < MIB


def test_a_file_of_nothing_but_hole_comes_back(bench: Bench) -> None:
    """It is what `truncate` makes, and what once was verified and could not be restored."""
    make(bench.root / "x", 21 << 30, {})
    bench.back_up(max_bytes=0)
    bench.bring_back(max_bytes=0)
    assert (bench.target / "x").stat().st_size == 21 << 30


@pytest.mark.parametrize(
    ("size", "stored"), [(64 * MIB - 1, 64 * MIB - 1), (64 * MIB + 4096, 4096)], ids=["few holes", "many"]
)
@pytest.mark.slow
def test_few_holes_are_stored_as_zeros(bench: Bench, size: int, stored: int) -> None:
    """So that `unzip` gives nearly every file as it was; the limits count them."""
    make(bench.root / "x", size, {0: b"x"})
    assert bench.back_up().content_bytes == stored
    subprocess.run(["unzip", "-q", bench.stored, "-d", bench.folder / "plain"], check=True, timeout=60)
    assert (bench.folder / "plain" / "x").stat().st_size == stored


def test_holes_shorter_than_a_block_are_no_pieces_of_their_own(tmp_path: Path) -> None:
    """A piece ends where the next hole of `HOLE` bytes begins."""
    make(tmp_path / "x", 200 * MIB, {0: b"x", 65536: b"x", 100 * MIB: b"x", 101 * MIB: b"x"})
    with open(tmp_path / "x", "rb") as file:
        found = layout_of(file.fileno(), 200 * MIB, 100, never)
    assert found == Layout(200 * MIB, ((0, 65536 + 4096), (100 * MIB, MIB + 4096)))


@pytest.mark.slow
def test_a_file_of_very_many_pieces_is_stored_with_zeros(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """The sidecar has room for so many pieces of all files, and each file takes one more. What doesn't fit counts in
    full, up to its last byte."""
    monkeypatch.setattr("workers.archive.write.PIECES", 6)
    monkeypatch.setattr("workers.archive.terms.PIECES", 6)
    pieces = {at * 2 * MIB: b"x" for at in range(8)}
    make(bench.root / "a", 200 * MIB, {0: b"x", 190 * MIB: b"x"})
    make(bench.root / "b", 300 * MIB, pieces)
    make(bench.root / "c", 100 * MIB, {})
    summary = bench.back_up()
    recorded = bench.store.sidecar(NAME)["sparse"]
    assert {name: len(each["data"]) for name, each in recorded.items()} == {"a": 2, "b": 2}
    assert recorded["b"]["data"][-1] == [2 * MIB, 12 * MIB + 4096]
    assert summary.content_bytes == 3 * 4096 + 12 * MIB + 4096 + 100 * MIB
    bench.bring_back()
    for at in pieces:
        assert content(bench.target / "b", at, 2) == b"x\0"
    bench.store.delete(NAME)
    with pytest.raises(PermanentError, match=rf"{summary.content_bytes} bytes in 3 files"):
        bench.back_up(max_bytes=summary.content_bytes - 1)


@pytest.mark.slow
def test_where_holes_can_not_be_told_a_file_is_read_whole(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """Some file systems know of none."""

    def ignorant(file: int, position: int, whence: int) -> int:
        raise OSError(22, "Invalid argument")

    make(bench.root / "x", 70 * MIB, {})
    monkeypatch.setattr(sparse.os, "lseek", ignorant)
    assert bench.back_up().content_bytes == 70 * MIB
    assert not bench.store.sidecar(NAME)["sparse"]


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("size", [1 * MIB, 150 * MIB, 300 * MIB])
def test_a_sparse_file_that_changes_is_kept_as_it_was_read(
    monkeypatch: pytest.MonkeyPatch, bench: Bench, size: int, always: bool
) -> None:
    """Cut or grown, once or always: the layout is that of what was read."""
    file, restored = bench.root / "x", bench.target / "x"
    make(file, 200 * MIB, {0: b"a" * 2 * MIB, 100 * MIB: b"b" * MIB})

    def change(count: int) -> None:
        if count == 1 or always:
            os.truncate(file, size + count % 2)

    meddle(monkeypatch, file, before_read=change)
    summary = bench.back_up()
    bench.bring_back()
    assert summary.changed == (("x",) if always else ())
    assert content(restored, 0, MIB) == b"a" * MIB
    if not always:
        assert restored.stat().st_size == size + 1
        assert content(restored, 100 * MIB, MIB) == (b"b" * MIB if size > 100 * MIB else b"")


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "shifted": lambda recorded: recorded["x"]["data"][1].__setitem__(0, 1),
    "cut": lambda recorded: recorded["x"].update(size=5),
    "forgotten": lambda recorded: recorded["x"]["data"].pop(),
    "of a folder": lambda recorded: recorded.update({"folder/": recorded["x"]}),
    "garbled": lambda recorded: recorded.update(x=["x"]),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_sidecar_that_lies_about_holes_is_refused(bench: Bench, lie: Callable[[dict[str, Any]], object]) -> None:
    """Data would land in the wrong place."""
    make(bench.root / "x", 200 * MIB, {0: b"x", 100 * MIB: b"x"})
    (bench.root / "folder").mkdir()
    bench.back_up()
    sidecar, zipped = bench.store.sidecar(NAME), bench.stored.read_bytes()
    lie(sidecar["sparse"])
    put(bench, zipped, sidecar)
    with pytest.raises(ArchiveError):
        bench.bring_back()
    bench.expect_untouched()


def test_a_backup_of_a_later_release_is_not_guessed_at(bench: Bench) -> None:
    """What it says beside the zip may matter."""
    bench.back_up()
    put(bench, bench.stored.read_bytes(), bench.store.sidecar(NAME) | {"versions": {"archive": FORMAT_VERSION + 1}})
    with pytest.raises(ArchiveError, match="later release"):
        bench.bring_back()
    bench.expect_untouched()


def put(bench: Bench, zipped: bytes, sidecar: dict[str, Any]) -> None:
    """Store these in the backup's stead."""
    bench.store.delete(NAME)
    with bench.store.writing(NAME) as part:
        part.write(zipped)
        part.commit(sidecar)
