"""Files that calls write and read in a workspace, wherever the service runs. A module of tests derives a class and has
the fixture `chat`, a session there."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import BinaryIO, cast

import pytest

from tests.conversation import Conversation
from tests.waiting import wait_for
from workspaces import ApiError, Asleep, ConnectionFailed, FileChanged

PIECE = 4_194_304
"""Bytes: more than the service passes on at a time."""


class Paused(io.RawIOBase):
    """A file to upload, of which no more than `PIECE` is read before `act` has been called."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act
        self._left = 3 * PIECE

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._left <= 2 * PIECE and self._act is not None:
            act, self._act = self._act, None
            act()
        count = min(65_536, self._left)
        self._left -= count
        return b"x" * count


def check_no_half(chat: Conversation, act: Callable[[], None]) -> None:
    """What is written while `act` happens is there whole or not at all, and the next agent keeps nothing of it."""
    files = chat.workspace()
    files.write("kept", "before")

    def once_it_is_begun() -> None:
        wait_for(lambda: chat.inside("ls -A ../.uploads"), "the agent to have a part of it")
        act()

    expected = b"x" * 3 * PIECE
    try:
        files.write("kept", cast(BinaryIO, Paused(once_it_is_begun)))
    except (ApiError, ConnectionFailed):
        expected = b"before"
    assert files.read("kept") == expected
    chat.sleep()
    assert files.read("kept") == expected
    wait_for(lambda: chat.inside("ls -A ../.uploads") == "", "the next agent to remove what is left")


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

    def test_a_sleep_in_the_midst_of_a_write_leaves_no_half(self, chat: Conversation) -> None:
        check_no_half(chat, chat.sleep)
