"""Files that calls write and read in a workspace, wherever the service runs. A module of tests derives a class and has
the fixture `chat`, a session there."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from tests.conversation import Conversation
from tests.waiting import wait_for
from workspaces import (
    ApiError,
    Asleep,
    ConnectionFailed,
    Event,
    FileChanged,
    FilesChangedEvent,
    FilesResetEvent,
    InvalidArchive,
    NotFound,
    StateConflict,
)

PIECE = 4_194_304
"""Bytes: more than the service passes on at a time."""


class Paused(io.RawIOBase):
    """A file to upload, of which no more than `PIECE` is read before `act` has been called."""

    def __init__(self, content: bytes, act: Callable[[], None]) -> None:
        self._content = io.BytesIO(content)
        self._act: Callable[[], None] | None = act

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._content.tell() >= PIECE and self._act is not None:
            act, self._act = self._act, None
            act()
        return self._content.read(65_536)


def sent_while(chat: Conversation, content: bytes, act: Callable[[], None]) -> BinaryIO:
    """A content during whose upload `act` is called, once the agent has a part of it."""

    def once_it_is_begun() -> None:
        wait_for(lambda: chat.inside("ls -A ../.uploads"), "the agent to have a part of it")
        act()

    return cast(BinaryIO, Paused(content, once_it_is_begun))


def check_nothing_is_kept(chat: Conversation) -> None:
    wait_for(lambda: chat.inside("ls -A ../.uploads") == "", "the next agent to remove what is left")


def check_no_half(chat: Conversation, act: Callable[[], None]) -> None:
    """What is written while `act` happens is there whole or not at all, and the next agent keeps nothing of it."""
    files = chat.workspace()
    files.write("kept", "before")
    content = b"x" * 3 * PIECE
    expected = content
    try:
        files.write("kept", sent_while(chat, content, act))
    except (ApiError, ConnectionFailed):
        expected = b"before"
    assert files.read("kept") == expected
    chat.sleep()
    assert files.read("kept") == expected
    check_nothing_is_kept(chat)


def check_no_part(chat: Conversation, act: Callable[[], None]) -> None:
    """Of an archive that is sent while `act` happens all is there or nothing, and nothing is kept of it."""
    ws, content = chat.workspace(), os.urandom(PIECE)
    ws.write("to/a", "before")
    expected = dict.fromkeys(["to/a", "to/b", "to/c"], content)
    archive = archive_of({name.removeprefix("to/"): content for name in expected})
    try:
        ws.write_tree(sent_while(chat, archive, act), "to")
    except (ApiError, ConnectionFailed):
        expected = {"to/a": b"before"}
    assert {each.path: ws.read(each.path) for each in ws.list_files("to")} == expected
    chat.sleep()
    chat.wake()
    check_nothing_is_kept(chat)


def archive_of(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def fill(folder: Path) -> None:
    """Make a project of all that a folder can hold."""
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "src" / "run me").write_text("echo hi\n")
    (folder / "src" / "run me").chmod(0o755)
    (folder / "src" / "deep" / "large").write_bytes(os.urandom(2 * PIECE + 7))
    (folder / "link").symlink_to("src/run me")
    (folder / "new\nline ü").touch()
    (folder / os.fsdecode(b"\xff")).write_bytes(b"\xff")


def tree_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The permissions and the content of each path below a folder."""
    found = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = mode, content
    return found


STORM = """
import os, random, shutil
chance = random.Random(7)
place = lambda: "storm/" + "/".join(chance.choice("abc") for _ in range(chance.randint(1, 3)))
for number in range(3_000):
    try:
        one, other = place(), place()
        match chance.randrange(4):
            case 0:
                os.makedirs(os.path.dirname(one), exist_ok=True)
                open(one, "w").close()
            case 1:
                os.makedirs(one)
            case 2:
                os.rename(one, other)
            case 3:
                shutil.rmtree(one) if os.path.isdir(one) else os.unlink(one)
    except OSError:
        pass
"""
"""A program that makes, moves and deletes files and folders."""


class Follower:
    """A client that knows what is in a workspace by following what changes there."""

    def __init__(self, chat: Conversation) -> None:
        self._ws = chat.workspace()
        self._stream = self._ws.watch(depth=100)
        self.told: list[str] = []
        self._heard = 0
        self.seen: set[str] = set()
        threading.Thread(target=self._follow, daemon=True).start()
        self.hears("reset")

    def _follow(self) -> None:
        # So it ends with its session.
        with suppress(StateConflict, NotFound):
            for event in self._stream:
                self._take_in(event)
                self.told.append(event.type)

    def _take_in(self, event: Event) -> None:
        if isinstance(event, FilesResetEvent):
            # One that has fallen asleep meanwhile is listed at the next reset.
            with suppress(Asleep):
                self.seen = {each.path for each in self._ws.list_files(depth=100, wake=False)}
        elif isinstance(event, FilesChangedEvent):
            gone = {each.path for each in event.gone}
            below = tuple(f"{path}/" for path in gone)
            self.seen = {path for path in self.seen - gone if not path.startswith(below)}
            self.seen |= {each.path for each in event.entries}

    def hears(self, kind: str) -> None:
        """Wait for such an event, after those that were waited for."""
        wait_for(lambda: kind in self.unheard(), f"an event {kind}", lambda: str(self.told))
        self._heard = self.told.index(kind, self._heard) + 1

    def unheard(self) -> list[str]:
        """The types of the events after those that were waited for."""
        return self.told[self._heard :]

    def sees(self, *paths: str) -> None:
        """Wait until these are there, and no others."""
        wait_for(lambda: self.seen == set(paths), f"{paths} to be seen", lambda: str(self.seen))

    def sees_all(self) -> None:
        """Wait until what it sees is what is there."""
        there = {each.path for each in self._ws.list_files(depth=100)}
        wait_for(lambda: self.seen == there, "all to be seen", lambda: str(self.seen ^ there))


class Files:
    """What becomes of files while their session lives as sessions do."""

    def test_a_file_is_written_run_and_read_awake_and_asleep(self, chat: Conversation) -> None:
        ws = chat.workspace()
        ws.write("src/hello.py", "print('hi')\n", mode="755")
        assert ws.run("python3 src/hello.py").stdout == "hi\n"
        assert chat.inside("stat -c '%a %U' src/hello.py; whoami").split()[0] == "755"
        chat.sleep()
        with pytest.raises(Asleep):
            ws.read("src/hello.py", wake=False)
        assert ws.read("src/hello.py") == b"print('hi')\n"
        chat.sleep()
        assert ws.write("out", b"\xff\0").size == 2
        assert chat.inside("wc -c < out").split() == ["2"]

    def test_a_large_file_comes_back_as_it_was(self, chat: Conversation) -> None:
        ws, content = chat.workspace(), os.urandom(8 * PIECE + 7)
        written = ws.write("large", io.BytesIO(content))
        assert (written.size, ws.read("large")) == (len(content), content)
        with pytest.raises(FileChanged):
            ws.write("large", b"", new=True)
        assert ws.write("large", b"", if_match=written.etag).size == 0

    def test_any_name_goes_through_all_proxies(self, chat: Conversation) -> None:
        ws = chat.workspace()
        names = [
            "a b",
            "new\nline",
            "ü",
            "per%20cent",
            "q?x=1",
            "hash#",
            "semi;colon",
            "back\\slash",
            "+",
            os.fsdecode(b"\xff"),
        ]
        for name in names:
            ws.write(f"names/{name}", name.encode("utf-8", "surrogateescape"))
        listed = list(ws.list_files("names"))
        assert sorted(each.exact_path.removeprefix("names/") for each in listed) == sorted(names)
        for each in listed:
            assert ws.read(each.exact_path) == os.fsencode(each.exact_path.removeprefix("names/"))

    def test_a_folder_goes_in_and_comes_out_as_it_was(self, chat: Conversation, tmp_path: Path) -> None:
        ws, mine = chat.workspace(), tmp_path / "mine"
        fill(mine)
        made = ws.upload_folder(mine, "project")
        assert (made.path, made.files) == ("project", 5)
        assert chat.inside("sh 'project/link'; stat -c %U project/src/deep") == f"hi\n{chat.inside('whoami')}"
        chat.sleep()
        ws.download_folder(tmp_path / "back", "project")
        assert tree_of(tmp_path / "back") == tree_of(mine)
        chat.sleep()
        assert ws.upload_folder(mine, "again").files == 5
        with zipfile.ZipFile(ws.download_tree(tmp_path / "all.zip")) as archive:
            assert archive.testzip() is None
            assert archive.read("again/src/deep/large") == (mine / "src/deep/large").read_bytes()

    def test_who_follows_changes_sees_them_wherever_they_come_from(self, chat: Conversation) -> None:
        ws, follower = chat.workspace(), Follower(chat)
        ws.write("by/call", "x")
        ws.run("touch by/command")
        chat.inside("touch by/hand")
        follower.sees("by", "by/call", "by/command", "by/hand")
        ws.run("mv by was")
        follower.sees("was", "was/call", "was/command", "was/hand")
        ws.run(["python3", "-c", STORM], timeout=60)
        ws.run("rm -rf was")
        follower.sees_all()
        assert "reset" not in follower.unheard()

    def test_who_follows_changes_wakes_nothing_and_goes_on_after_a_wake(self, chat: Conversation) -> None:
        ws, follower = chat.workspace(), Follower(chat)
        ws.write("before", "x")
        follower.sees("before")
        chat.sleep()
        follower.hears("asleep")
        with pytest.raises(Asleep):
            ws.read("before", wake=False)
        ws.write("after", "x")
        follower.hears("reset")
        follower.sees("before", "after")

    def test_a_hostile_archive_changes_nothing(self, chat: Conversation) -> None:
        ws = chat.workspace()
        ws.write("to/kept", "before")
        for name in ("../out", "/tmp/out", "kept/below", "a/../../out"):
            with pytest.raises(InvalidArchive):
                ws.write_tree(archive_of({"new": b"", "kept": b"", name: b"x"}), "to")
        with pytest.raises(InvalidArchive):
            ws.write_tree(archive_of({"new": b"x" * 1_000})[:-9], "to")
        assert [each.path for each in ws.list_files("to")] == ["to/kept"]
        assert ws.read("to/kept") == b"before"

    def test_a_sleep_in_the_midst_of_an_archive_leaves_no_part(self, chat: Conversation) -> None:
        check_no_part(chat, chat.sleep)

    def test_a_sleep_in_the_midst_of_a_write_leaves_no_half(self, chat: Conversation) -> None:
        check_no_half(chat, chat.sleep)
