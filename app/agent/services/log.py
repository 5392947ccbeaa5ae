"""The newest output of a service, in files of its folder that outlive the agent's process.

    log-<n>     the output from byte n on, up to the next file's

A byte is told by its place in all that was ever written, so a reader can go on where it was, whatever was dropped.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from app.agent.disk import read_file
from app.agent.execs.output import as_text, open_character

FILE_BYTES = 2_097_152
FILES = 2
"""The oldest goes once a further one begins."""

NAME = re.compile(r"log-(\d{1,15})", re.ASCII)


class Log:
    """The output of one service. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = sorted(_places(folder))
        self._fd = -1
        last = self._files[-1] if self._files else 0
        self.size = last + (_size(self._path(last)) if self._files else 0)
        """Bytes ever written."""

    @property
    def first(self) -> int:
        """The first byte that is kept."""
        return self._files[0] if self._files else self.size

    def add(self, data: bytes) -> None:
        """Add output. What a full disk does not take is left out."""
        with contextlib.suppress(OSError):
            while data:
                written = os.write(self._open(), data[: self._files[-1] + FILE_BYTES - self.size])
                self.size += written
                data = data[written:]

    def piece(self, offset: int, most: int) -> tuple[str, int]:
        """The text from byte `offset` on, and where the next piece begins. What is kept no longer is passed over; a
        character whose end is not written yet is left to the next piece."""
        data = b""
        for place, end in zip(self._files, [*self._files, self.size][1:], strict=True):
            if offset + len(data) < end and len(data) < most:
                if not data:
                    offset = max(offset, place)
                at = offset + len(data)
                data += read_file(self._path(place), at - place, min(most - len(data), end - at))
        whole = len(data) - open_character(data)
        return as_text(data[:whole]), offset + whole

    def close(self) -> None:
        """Free the file that is written; `add` opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        """The file that has room."""
        full = not self._files or self.size - self._files[-1] >= FILE_BYTES
        if full:
            self.close()
            self._fd = self._opened(self.size)
            self._files.append(self.size)
            for place in self._files[:-FILES]:
                self._path(place).unlink(missing_ok=True)
            del self._files[:-FILES]
        elif self._fd < 0:
            self._fd = self._opened(self._files[-1])
        return self._fd

    def _opened(self, place: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self._path(place), flags, 0o600)

    def _path(self, place: int) -> Path:
        return self._folder / f"log-{place}"


def _places(folder: Path) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(found[1]) for name in os.listdir(folder) if (found := NAME.fullmatch(name))]
    return []


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat(follow_symlinks=False).st_size
    return 0
