"""Sparse files: only their data is read, stored and written back.

`truncate -s 2T image` takes no room on a disk; it must take none in a backup, nor hours of reading zeros. The entry of
a sparse file in the zip is its data, one piece after the other; the sidecar says where each piece belongs, `"sparse":
{entry: {"size": bytes, "data": [[offset, length], ...]}}`. No workspace can change the sidecar.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.core.errors import ArchiveError
from workers.runtime.base import Check

HOLE = 1 << 20
"""Bytes: a shorter hole is stored as the zeros it reads as."""

WORTH = 64 << 20
"""Bytes of holes from which a file is stored as sparse. Fewer cost a tenth of a second as zeros, and `unzip` restores
the file as it was."""

PIECES = 20_000
"""Pieces of all sparse files of a backup; beyond them holes are stored as zeros. A hostile file could have millions,
and after a loss of Redis every sidecar is read."""

Piece = tuple[int, int]
"""Offset and length of data in a file, bytes."""


@dataclass(frozen=True)
class Layout:
    """Where a file of `size` bytes has its data; all else are holes."""

    size: int
    data: tuple[Piece, ...]

    @property
    def stored(self) -> int:
        """Bytes of its entry in the zip."""
        return sum(length for _, length in self.data)

    def to_json(self) -> dict[str, Any]:
        return {"size": self.size, "data": [list(piece) for piece in self.data]}


def layout_of(file: int, size: int, room: int, check: Check) -> Layout | None:
    """Where a file has its data, in fewer than `room` pieces; None when it is not sparse or its file system cannot
    tell. Moves the descriptor's position."""
    if size < WORTH:
        return None
    pieces: list[Piece] = []
    end = 0
    try:
        while (start := _next_data(file, end)) < size:
            check()
            joined = pieces and (start - end < HOLE or len(pieces) + 1 >= room)
            # Even if the file changes meanwhile, each step must advance.
            end = max(end + 1, min(os.lseek(file, start, os.SEEK_HOLE), size))
            first = pieces.pop()[0] if joined else start
            pieces.append((first, end - first))
    except OSError:
        return None
    found = Layout(size, tuple(pieces))
    return found if len(pieces) < room and size - found.stored >= WORTH else None


def _next_data(file: int, start: int) -> int:
    """Where data begins at or after `start`; beyond any file when there is none."""
    try:
        return os.lseek(file, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return sys.maxsize
        raise


def read_layouts(sidecar: Mapping[str, Any]) -> dict[str, Layout]:
    """The sparse files of a backup by the names of their entries; `ArchiveError` when the sidecar is invalid."""
    try:
        found = {
            str(name): Layout(int(each["size"]), tuple((int(start), int(length)) for start, length in each["data"]))
            for name, each in sidecar.get("sparse", {}).items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(sidecar) from error
    if not all(map(_possible, found.values())):
        raise _damaged(sidecar)
    return found


def _possible(layout: Layout) -> bool:
    end = 0
    for start, length in layout.data:
        if start < end or length < 0:
            return False
        end = start + length
    return end <= layout.size


def _damaged(sidecar: Mapping[str, Any]) -> ArchiveError:
    return ArchiveError(f"The sidecar of {sidecar.get('name')} is damaged: the layout of a sparse file is invalid.")


def spread(blocks: Iterable[bytes], layout: Layout, file: int) -> None:
    """Write an entry's content to its places in an empty file."""
    os.ftruncate(file, layout.size)
    pieces = iter(layout.data)
    offset = left = 0
    # Read all blocks: only then are they known to be valid.
    for block in blocks:
        rest = memoryview(block)
        while rest:
            while not left:
                offset, left = next(pieces)
            written = os.pwrite(file, rest[:left], offset)
            rest, offset, left = rest[written:], offset + written, left - written
