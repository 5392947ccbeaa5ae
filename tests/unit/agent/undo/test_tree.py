"""A walk of a project's folder: a line for each entry, which says all that an undo point compares."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from app.agent.undo import tree
from app.agent.undo.tree import FILE, FOLDER, LINK, TooMany, file_of, lines, parse, size_of


def test_each_entry_has_a_line_whatever_its_name_is(tmp_path: Path) -> None:
    """Links are not followed; what is no file, folder or link is left out."""
    root = os.fsencode(tmp_path)
    names = [b"a b", b"new\nline", b"\xff\xfe", b"-name", b" ", b"d 755 x"]
    for name in names:
        Path(os.fsdecode(root + b"/" + name)).write_bytes(name)
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("folder")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        found = {each.path: each for each in map(parse, lines(tmp_path))}
    assert set(found) == {*names, b"folder", b"folder/below", b"link"}
    assert {found[name].kind for name in names} == {FILE}
    assert (found[b"folder"].kind, found[b"link"].kind) == (FOLDER, LINK)
    for name in names:
        assert size_of(found[name].status) == found[name].size == len(name)
        assert file_of(name, os.lstat(root + b"/" + name)) == found[name], "a file that is open has the same line"


@pytest.mark.parametrize("seconds", [0.0, 0.000_000_001, 1_700_000_000.5, 4_000_000_000.25])
def test_times_are_read_to_the_nanosecond(tmp_path: Path, seconds: float) -> None:
    file = tmp_path / "file"
    file.touch()
    os.utime(file, ns=(0, round(seconds * 10**9)))
    (line,) = lines(tmp_path)
    assert parse(line).mtime == file.stat().st_mtime_ns
    assert file_of(b"file", file.stat()) == parse(line)


def test_a_line_changes_with_the_file_and_not_without(tmp_path: Path) -> None:
    """Also when a program puts the time of the content back."""
    file = tmp_path / "file"
    file.write_text("a")
    first = lines(tmp_path)
    assert lines(tmp_path) == first
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    file.write_text("b")
    os.utime(file, ns=times)
    assert not lines(tmp_path) & first


def test_no_walk_is_taken_for_one_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).touch()
    with pytest.raises(OSError, match="Not a directory"):
        lines(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        lines(tmp_path / "none")
    with monkeypatch.context() as patched, pytest.raises(TooMany):
        patched.setattr(tree, "MOST_ENTRIES", 2)
        lines(tmp_path)
    killed = tmp_path / "find"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(tree, "FIND", str(killed))
    with pytest.raises(OSError, match="broken off"):
        lines(tmp_path)
