"""A place in a tree of folders that others may change meanwhile, moved down and up one folder at a time.

One folder is open, so a tree may be of any depth, also deeper than a path can tell. No link is followed.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Descent:
    """Begins at the folder `path`, which may be relative to the one with the descriptor `within`. `folder` is the
    descriptor of the place. All raise `OSError`, and then the place is the same."""

    def __init__(self, path: str | Path, within: int | None = None) -> None:
        self.folder = os.open(path, FOLDER_FLAGS, dir_fd=within)
        self._above: list[tuple[int, int]] = []

    def __enter__(self) -> Descent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.folder)

    def enter(self, name: str) -> None:
        """Move to a folder of the place. One that may not be searched is refused: no way would lead back."""
        here = _inode(os.fstat(self.folder))
        below = os.open(name, FOLDER_FLAGS, dir_fd=self.folder)
        try:
            _refuse_another(os.stat("..", dir_fd=below), here)
        except OSError:
            os.close(below)
            raise
        self._above.append(here)
        self._move(below)

    def leave(self) -> None:
        """Move to the folder above. Refused if the place was moved elsewhere."""
        above = os.open("..", FOLDER_FLAGS, dir_fd=self.folder)
        try:
            _refuse_another(os.fstat(above), self._above[-1])
        except OSError:
            os.close(above)
            raise
        self._above.pop()
        self._move(above)

    def _move(self, folder: int) -> None:
        os.close(self.folder)
        self.folder = folder


def _inode(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _refuse_another(folder: os.stat_result, expected: tuple[int, int]) -> None:
    if _inode(folder) != expected:
        raise OSError(errno.ESTALE, "the folder was moved")
