"""What a command writes to one of its streams: the first bytes in a file, the last ones in memory."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.agent.disk import read_file

HEAD = TAIL = 32_768
"""Bytes at the beginning and at the end that an answer shows; errors are usually at the end."""

LONGEST_CHARACTER = 4
"""Bytes of UTF-8."""


@dataclass(frozen=True)
class Stream:
    """A stream of `size` bytes. The file has the first `kept` of them, which are all unless the stream is longer than
    allowed or the disk was full, and `tail` is its end."""

    path: Path
    size: int = 0
    kept: int = 0
    tail: bytes = b""

    @classmethod
    def from_json(cls, path: Path, told: Mapping[str, Any]) -> Stream:
        """What `to_json` gave. Raises KeyError, TypeError and ValueError for anything else."""
        size, kept, tail = told["size"], told["kept"], base64.b64decode(told["tail"], validate=True)
        if not 0 <= kept <= size or not len(tail) <= min(size, TAIL):
            raise ValueError(told)
        return cls(path, int(size), int(kept), tail)

    def to_json(self) -> dict[str, Any]:
        return {"size": self.size, "kept": self.kept, "tail": base64.b64encode(self.tail).decode()}

    @property
    def truncated(self) -> bool:
        """Whether `text` leaves something out."""
        return self.size > min(self.kept, HEAD) + len(self.tail)

    def text(self) -> str:
        """All of it, or its beginning and its end with a note of what is left out."""
        head = self.read(0, min(HEAD, self.size - len(self.tail)))
        left_out = self.size - len(head) - len(self.tail)
        if not left_out:
            return as_text(head + self.tail)
        return f"{as_text(head)}\n[… {left_out} bytes left out …]\n{as_text(self.tail)}"

    def read(self, offset: int, most: int) -> bytes:
        """Bytes of the file; fewer where it ends, or is gone."""
        return read_file(self.path, offset, max(0, min(most, self.kept - offset)))

    def piece(self, offset: int, most: int, *, ended: bool) -> tuple[str, int]:
        """The text from byte `offset` on, and where the next piece begins. A character whose end is not written yet is
        left to that, unless the stream has `ended`. What neither the file nor the tail has, or once the stream has
        ended the file lacks, is passed over."""
        data = self.read(offset, most)
        if not data and offset >= self.kept:
            tail_at = self.size - len(self.tail)
            offset = max(offset, tail_at)
            data = self.tail[offset - tail_at :][:most]
        if not data:
            return "", self.size if ended or offset >= self.kept else offset
        if not (ended and offset + len(data) == self.size):
            data = data[: len(data) - open_character(data)]
        return as_text(data), offset + len(data)


class Output:
    """Writes a stream of any length, the first `most` bytes to a file. Not thread-safe."""

    def __init__(self, path: Path, most: int) -> None:
        self.so_far = Stream(path)
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            self._most = most
        except OSError:
            self._fd, self._most = -1, 0

    def add(self, data: bytes) -> None:
        """Add data of the stream. A disk that can't be written costs the file its end, and nothing else."""
        size, kept = self.so_far.size, self.so_far.kept
        if kept == size and (room := self._most - kept) > 0:
            with contextlib.suppress(OSError):
                kept += os.write(self._fd, data[:room])
        tail = (self.so_far.tail + data[-TAIL:])[-TAIL:]
        self.so_far = Stream(self.so_far.path, size + len(data), kept, tail)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def as_text(data: bytes) -> str:
    """Bytes as text; what is no UTF-8 becomes U+FFFD."""
    return data.decode("utf-8", "replace")


def open_character(data: bytes) -> int:
    """How many bytes at the end begin a character that may go on."""
    for length in range(1, min(LONGEST_CHARACTER, len(data)) + 1):
        byte = data[-length]
        if byte >= 0xC0:
            whole = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return length if length < whole else 0
        if byte < 0x80:
            return 0
    return 0
