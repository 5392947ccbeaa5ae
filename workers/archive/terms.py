"""The terms of a backup, and the errors when a workspace does not meet them.

A backup that cannot be complete, or could not be restored, is refused. It ends at the first such file; then a scan of
the whole workspace, without reading it, gives the error its figures.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.core.errors import BackupIncomplete, PermanentError, RetryableError, SessionError
from app.process.private_text import private
from workers.archive.format import printable
from workers.archive.source import Source
from workers.archive.sparse import PIECES, WORTH, layout_of
from workers.archive.walking import Found, Replaced, open_file
from workers.runtime.base import Check, never

NAMED = 10
"""How many paths an error names."""


@dataclass(frozen=True)
class Terms:
    """`max_bytes` and `max_entries` are the limits of a restore, by default none; a `partial` backup may lack
    unreadable files; `check` raises when the backup is no longer wanted."""

    max_bytes: int = sys.maxsize
    max_entries: int = sys.maxsize
    partial: bool = False
    check: Check = never


class TooMuch(Exception):
    """A restore would refuse this workspace."""


class Unreadable(Exception):
    """A file cannot be read, and the backup must be complete."""


@dataclass
class Scan:
    """What a workspace holds: bytes and entries as a restore counts them, its largest file, and some of its unreadable
    paths."""

    content_bytes: int = 0
    entries: int = 0
    pieces: int = 0
    largest: tuple[int, str] = (0, "")
    unreadable_count: int = 0
    unreadable: list[str] = field(default_factory=list)

    def missed(self, path: str, error: Exception) -> None:
        """Count unreadable files; vanished ones do not matter here."""
        if isinstance(error, PermissionError):
            self.unreadable_count += 1
            if self.unreadable_count <= NAMED:
                self.unreadable.append(printable(path))

    def count(self, found: Found, check: Check) -> None:
        """Count one entry."""
        mode = found.info.st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            return
        self.entries += 1
        if stat.S_ISLNK(mode):
            # A restore counts its target as content.
            self.content_bytes += found.info.st_size
        elif stat.S_ISREG(mode):
            size = self._size(found, check)
            self.content_bytes += size
            self.largest = max(self.largest, (size, printable(found.path)))

    def _size(self, found: Found, check: Check) -> int:
        with open_file(found.folder, found.name) as file:
            size = os.fstat(file.fileno()).st_size
            layout = layout_of(file.fileno(), size, PIECES - self.pieces, check) if size >= WORTH else None
        if layout is None:
            return size
        self.pieces += len(layout.data) + 1
        return layout.stored


def scan(source: Source, check: Check) -> Scan:
    """Scan what is to be backed up."""
    seen = Scan()
    for found in source.walk(seen.missed, check):
        try:
            seen.count(found, check)
        except (OSError, Replaced) as error:
            seen.missed(found.path, error)
    return seen


def refusal(why: TooMuch | Unreadable, source: Source, terms: Terms) -> SessionError:
    """The error that names the problem and what to do."""
    seen = scan(source, terms.check)
    too_much = seen.content_bytes > terms.max_bytes or seen.entries > terms.max_entries
    if not (seen.unreadable_count if isinstance(why, Unreadable) else too_much):
        return RetryableError("The workspace changed while it was backed up.")
    if isinstance(why, Unreadable):
        return incomplete(seen.unreadable_count, seen.unreadable)
    return PermanentError(
        f"The workspace has {seen.content_bytes} bytes in {seen.entries} files, folders and links. At most "
        f"{terms.max_bytes} bytes and {terms.max_entries} of them can be restored, so it was not backed up. Delete "
        f"unneeded files (the largest is {private(seen.largest[1])} with {seen.largest[0]} bytes), or raise "
        "RESTORE_MAX_BYTES or RESTORE_MAX_ENTRIES."
    )


def incomplete(count: int, paths: Sequence[str]) -> BackupIncomplete:
    """The error for unreadable files, of which `paths` are some; "" is the workspace's folder."""
    if "" in paths:
        return BackupIncomplete(
            "The workspace's folder is not readable, so it cannot be backed up. Make it readable, or delete "
            "the session without a backup."
        )
    named = ", ".join(paths[:NAMED])
    more = ", …" if count > len(paths[:NAMED]) else ""
    return BackupIncomplete(
        f"Unreadable files or folders would be missing from the backup: {count} ({private(named + more)}). Make them "
        "readable, or ask for a partial backup."
    )
