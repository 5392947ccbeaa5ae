"""Trees of folders that are deeper than Python's stack, and than a path can tell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

BEYOND_STACK, BEYOND_PATH = 1_200, 3_000
"""Levels: the stack ends at 1,000 calls, a path at 4,096 bytes."""


class DeepTrees:
    """Makes them, and deletes what a test left: pytest could not."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._made: list[Path] = []

    def __call__(self, top: Path, levels: int = BEYOND_PATH, content: bytes = b"at the bottom") -> None:
        """Make the folder `top`, folders named `d` in each other below it, and a file in the deepest."""
        top.mkdir()
        self._made.append(top)
        folder = os.open(top, os.O_PATH)
        for _ in range(levels):
            os.mkdir("d", dir_fd=folder)
            below = os.open("d", os.O_PATH, dir_fd=folder)
            os.close(folder)
            folder = below
        with open(os.open("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=folder), "wb") as file:
            file.write(content)
        os.close(folder)

    def delete(self) -> None:
        """Delete those that are still there, also those that were moved within the place."""
        subprocess.run(["rm", "-rf", *self._made], check=True, timeout=60)
        subprocess.run(["find", self._place, "-path", "*/d/d/*", "-delete"], check=True, timeout=60)
