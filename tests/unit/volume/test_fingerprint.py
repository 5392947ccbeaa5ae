"""The fingerprint is another one after any change of what restore points hold, and the same after none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from app.volume import fingerprint as module
from app.volume.fingerprint import fingerprint


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    for path, text in (("app/file", "text"), ("app/deep/er", "x"), ("home/.bashrc", "x"), ("home/.cache/x", "x")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_without_a_change_it_is_the_same(volume: Path) -> None:
    assert fingerprint(volume) == fingerprint(volume) != ""


def same_time(path: Path, text: str) -> None:
    """Write as many bytes, and put the time of change back: only the kernel's own tells."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: list[Callable[[Path], object]] = [
    lambda volume: (volume / "app/file").write_text("longer"),
    lambda volume: same_time(volume / "app/file", "fake"),
    lambda volume: (volume / "app/file").chmod(0o700),
    lambda volume: (volume / "app/file").rename(volume / "app/other"),
    lambda volume: (volume / "app/new").touch(),
    lambda volume: (volume / "app/empty").mkdir(),
    lambda volume: (volume / "app/link").symlink_to("file"),
    lambda volume: (volume / "app/deep/er").unlink(),
    lambda volume: (volume / "app/deep").chmod(0o700),
    lambda volume: (volume / "home/.bashrc").unlink(),
    lambda volume: (volume / ".session").mkdir(),
    lambda volume: (volume / "app/.workspaceignore").write_text("file"),
    lambda volume: Path(os.fsdecode(os.fsencode(volume) + b"/app/bad\xff\n")).touch(),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_another_one(volume: Path, change: Callable[[Path], object]) -> None:
    before = fingerprint(volume)
    change(volume)
    assert fingerprint(volume) not in (before, "")


def test_what_points_leave_out_does_not_count(volume: Path) -> None:
    before = fingerprint(volume)
    (volume / "home/.cache/y").write_text("x")
    (volume / "app/__pycache__").mkdir()
    (volume / "meta.json").write_text("beside the files")
    assert fingerprint(volume) == before


def test_a_tagged_cache_counts_by_its_tag_only(volume: Path) -> None:
    (volume / "app/deep/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    before = fingerprint(volume)
    (volume / "app/deep/more").write_text("x")
    assert fingerprint(volume) == before


def test_no_link_is_followed(volume: Path) -> None:
    (volume / "app/loop").symlink_to(".")
    (volume / "app/out").symlink_to("/")
    assert fingerprint(volume)


def test_a_walk_that_takes_too_long_says_that_it_does_not_know(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all is left out."""
    with monkeypatch.context() as patched:
        patched.setattr(module, "LOOK_EVERY", 1)
        patched.setattr(module, "MOST_ENTRIES", 2)
        assert fingerprint(volume) == ""
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    assert fingerprint(volume) == ""
    (volume / "app/.workspaceignore").write_text("*\n")
    assert fingerprint(volume) == ""


def test_a_walk_can_be_broken_off(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 1)
    with pytest.raises(RuntimeError, match="not wanted"):
        fingerprint(volume, Mock(side_effect=RuntimeError("not wanted any more")))
