"""Reading a stored zip back to its last byte, before it may be called a backup."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from app.sessions.errors import ArchiveError, RetryableError
from workers.archive.reading import UNREADABLE, digest_of, entry_content
from workers.runtime.base import Check


@dataclass(frozen=True)
class Expected:
    """What was written: `size` bytes with this SHA-256 (hex), and in them so many entries, whose
    regular files have `content_bytes` bytes together. `sparse` are bytes of data by sparse file's entry."""

    sha256: str
    size: int
    entries: int
    content_bytes: int
    sparse: Mapping[str, int]


def verify(stored: BinaryIO, name: str, expected: Expected, check: Check) -> None:
    """Compare all that is stored with what was written: every byte, every CRC, the counts.

    Other bytes than were written are `RetryableError`, as the store may have failed for once; a zip
    that can't be read although they are the same is `ArchiveError`.
    """
    if digest_of(stored, check) != (expected.sha256, expected.size):
        raise RetryableError(f"{name} was not stored as it was written; nothing was kept of it.")
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
        raise ArchiveError(f"{name} can't be read back; nothing was kept of it.") from error
    if (entries, content_bytes, sparse) != (expected.entries, expected.content_bytes, expected.sparse):
        raise ArchiveError(f"{name} does not hold what was put into it; nothing was kept of it.")
