"""What is sent as the content of a file: bytes, or what a file object has, in pieces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Final

PIECE: Final = 65_536
"""Bytes that are read of a file at a time."""


class FileContent:
    """A file object from where it stands to the end that it has now. One that can't be sought is read once, to whatever
    end it has; each iteration of another one begins where the first began. `size` is in bytes, None if not known."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.repeatable = file.seekable()
        self.size: int | None = None
        if self.repeatable:
            self._begin = file.tell()
            self.size = max(0, file.seek(0, os.SEEK_END) - self._begin)

    def __iter__(self) -> Iterator[bytes]:
        if self.size is None:
            while piece := self._file.read(PIECE):
                yield piece
            return
        self._file.seek(self._begin)
        left = self.size
        while left and (piece := self._file.read(min(PIECE, left))):
            left -= len(piece)
            yield piece
