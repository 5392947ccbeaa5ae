"""Verifies a stored zip by reading all of it, before it counts as a backup."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from app.core.errors import ArchiveError, RetryableError
from workers.archive.reading import UNREADABLE, digest_of, entry_content
from workers.runtime.base import Check


@dataclass(frozen=True)
class Expected:
    """What was written: `size` bytes with this SHA-256 (hex), with this number of entries, whose regular files have
    `content_bytes` bytes together. `sparse` are the bytes of data by the entry of a sparse file."""

    sha256: str
    size: int
    entries: int
    content_bytes: int
    sparse: Mapping[str, int]


def verify(stored: BinaryIO, name: str, expected: Expected, check: Check) -> None:
    """Compare the stored zip with what was written: every byte, every CRC, the counts.

    Raises `RetryableError` when bytes differ, as the store may have failed once, and `ArchiveError` when the bytes are
    the same and the zip is invalid.
    """
    if digest_of(stored, check) != (expected.sha256, expected.size):
        raise RetryableError(f"{name} was stored incorrectly, so it was discarded.")
    entries = content_bytes = 0
    sparse = {}
    try:
        with zipfile.ZipFile(stored) as archive:
            found = archive.infolist()
        for info in found:
            length = sum(len(block) for block in entry_content(stored, info, check))
            entries += 1
            if info.orig_filename in expected.sparse:
                sparse[info.orig_filename] = length
            content_bytes += length if stat.S_ISREG(info.external_attr >> 16) else 0
    except UNREADABLE as error:
        raise ArchiveError(f"{name} cannot be read back, so it was discarded.") from error
    if (entries, content_bytes, sparse) != (expected.entries, expected.content_bytes, expected.sparse):
        raise ArchiveError(f"{name} does not hold all files, so it was discarded.")
