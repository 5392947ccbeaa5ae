"""Under which terms a backup is made, and what is said when the workspace doesn't meet them.

A backup that can't be made whole, or could not be restored, is none. It ends at the first file that says so; then one
look at everything, without reading it, tells whoever has to mend it how much there is.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.sessions.errors import BackupIncomplete, PermanentError, RetryableError, SessionError
from workers.archive.format import printable
from workers.archive.sparse import PIECES, WORTH, layout_of
from workers.archive.walking import Found, Replaced, open_file, walk
from workers.runtime.base import Check, never

NAMED = 10
"""How many paths an error names."""


@dataclass(frozen=True)
class Terms:
    """`max_bytes` and `max_entries` are what a restore takes, by default all there can be; a `partial` backup may lack
    files that may not be read; `check` raises when the backup is no longer wanted."""

    max_bytes: int = sys.maxsize
    max_entries: int = sys.maxsize
    partial: bool = False
    check: Check = never


class TooMuch(Exception):
    """A restore would refuse this workspace."""


class Unreadable(Exception):
    """A file may not be read, and the backup must be whole."""


@dataclass
class Survey:
    """What a workspace holds: bytes and entries as a restore would count them, its largest file, and some of what may
    not be read."""

    content_bytes: int = 0
    entries: int = 0
    pieces: int = 0
    largest: tuple[int, str] = (0, "")
    unreadable_count: int = 0
    unreadable: list[str] = field(default_factory=list)

    def missed(self, path: str, error: Exception) -> None:
        """Count what may not be read; what vanished doesn't matter here."""
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
            # Its target is content to a restore.
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


def survey(root: int, check: Check) -> Survey:
    """Look at all that is in the folder with this descriptor."""
    seen = Survey()
    for found in walk(root, seen.missed, check):
        try:
            seen.count(found, check)
        except (OSError, Replaced) as error:
            seen.missed(found.path, error)
    return seen


def refusal(why: TooMuch | Unreadable, root: int, terms: Terms) -> SessionError:
    """The error that says what is wrong with the workspace, and what to do."""
    seen = survey(root, terms.check)
    too_much = seen.content_bytes > terms.max_bytes or seen.entries > terms.max_entries
    if not (seen.unreadable_count if isinstance(why, Unreadable) else too_much):
        return RetryableError("The workspace changed while it was backed up.")
    if isinstance(why, Unreadable):
        return incomplete(seen.unreadable_count, seen.unreadable)
    return PermanentError(
        f"The workspace has {seen.content_bytes} bytes in {seen.entries} files, folders and links. Not more than "
        f"{terms.max_bytes} bytes and {terms.max_entries} of them can be restored, so it was not backed up. Delete "
        f"what is not needed (the largest file is {seen.largest[1]} with {seen.largest[0]} bytes), or raise "
        "RESTORE_MAX_BYTES or RESTORE_MAX_ENTRIES."
    )


def incomplete(count: int, paths: Sequence[str]) -> BackupIncomplete:
    """The error for files that may not be read, of which `paths` are some; "" is the folder of all."""
    if "" in paths:
        return BackupIncomplete(
            "The workspace's folder may not be read, so nothing in it can be backed up. Make it readable, or delete "
            "the session without a backup."
        )
    named = ", ".join(paths[:NAMED])
    more = ", …" if count > len(paths[:NAMED]) else ""
    return BackupIncomplete(
        f"Files or folders that may not be read would be missing from the backup: {count} ({named}{more}). Make them "
        "readable, or ask for a partial backup."
    )
