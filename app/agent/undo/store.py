"""The undo points on disk: one SQLite file with all versions of all entries, and each content once.

An entry is a version of a path: it was so from the save `since` until before the save `until` (none: it still is). The
state at a point is all entries that span it. So a save writes only what changed, and dropping a point is deleting
what no other point spans. A content is in pieces of `PIECE` bytes, so that a large file is never in memory as a whole.

Every change is a transaction, so a killed process leaves the file as after the last one. The file is not trusted: a
command may have written it. It holds data only, and is read by a process that can do no more than commands.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from app.agent.undo.tree import Found

PIECE = 1 << 20
PIECES = 1 << 20
"""Of one content at most; a piece's id is that of its content times this, and its number."""

VACUUM_PAGES = 16_384
"""Given back to the file system after a save, at most: 64 MB, so that it takes no second."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS save (number INTEGER);
CREATE TABLE IF NOT EXISTS point (
    number INTEGER PRIMARY KEY, message_id TEXT UNIQUE, created_at REAL, files INTEGER);
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY, path BLOB, since INTEGER, until INTEGER, kind TEXT, mode INTEGER, size INTEGER,
    mtime INTEGER, status BLOB, kept INTEGER, content INTEGER, target BLOB);
CREATE INDEX IF NOT EXISTS entry_until ON entry (until) WHERE until IS NOT NULL;
CREATE INDEX IF NOT EXISTS entry_content ON entry (content) WHERE content IS NOT NULL;
CREATE TABLE IF NOT EXISTS content (id INTEGER PRIMARY KEY, digest BLOB UNIQUE);
CREATE TABLE IF NOT EXISTS piece (id INTEGER PRIMARY KEY, data BLOB);
"""

FOUND = "path, kind, mode, size, mtime, status"
COLUMNS = f"id, {FOUND}, kept, content, target"


class Entry(NamedTuple):
    """A version of a path, as stored. `kept`: its content is not stored, so undoing leaves alone what is there."""

    id: int
    path: bytes
    kind: str
    mode: int
    size: int
    mtime: int
    status: bytes
    kept: int
    content: int | None
    target: bytes | None

    def same(self, found: Found) -> bool:
        """Whether what was found is this version, by its status."""
        return self.status == found.status


class Point(NamedTuple):
    """An undo point: the state before a prompt. `files` counts its entries."""

    number: int
    message_id: str
    created_at: float
    files: int


class Store:
    """Raises sqlite3.Error. One process at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0)
        try:
            for pragma in (
                "trusted_schema = OFF",
                "cell_size_check = ON",
                "auto_vacuum = INCREMENTAL",
                "locking_mode = EXCLUSIVE",
                "journal_mode = TRUNCATE",
                "synchronous = NORMAL",
            ):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(SCHEMA)
        except sqlite3.Error:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file; what was not committed is void."""
        self._db.close()

    def begin(self) -> None:
        """Begin a transaction."""
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End it."""
        self._db.execute("COMMIT")

    # Points

    def points(self) -> list[Point]:
        """All, the newest first."""
        rows = self._db.execute("SELECT number, message_id, created_at, files FROM point ORDER BY number DESC")
        return [Point(*row) for row in rows]

    def point(self, message_id: str) -> Point | None:
        """The one of a prompt."""
        return next((point for point in self.points() if point.message_id == message_id), None)

    def next_number(self) -> int:
        """A number for a save, higher than all before."""
        row = self._db.execute("SELECT max(number) FROM save").fetchone()
        number = (row[0] or 0) + 1
        self._db.execute("DELETE FROM save")
        self._db.execute("INSERT INTO save VALUES (?)", (number,))
        return int(number)

    def add_point(self, point: Point) -> None:
        """Make the state of a save a point."""
        self._db.execute("INSERT INTO point VALUES (?, ?, ?, ?)", point)

    def drop(self, points: Iterable[Point]) -> None:
        """Drop points, and what no other point and not the newest state needs."""
        for point in points:
            self._db.execute("DELETE FROM point WHERE number = ?", (point.number,))
        self.collect()

    def collect(self) -> None:
        """Delete entries that no point spans, and contents of no entry."""
        unspanned = """FROM entry WHERE until IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM point WHERE number >= since AND number < until)"""
        contents = [row[0] for row in self._db.execute(f"SELECT DISTINCT content {unspanned} AND content IS NOT NULL")]
        self._db.execute(f"DELETE {unspanned}")
        for content in contents:
            if not self._db.execute("SELECT 1 FROM entry WHERE content = ? LIMIT 1", (content,)).fetchone():
                self.remove_content(content)

    # Entries

    def statuses(self) -> set[bytes]:
        """What was found by the last save, also if it was broken off."""
        return {row[0] for row in self._db.execute("SELECT status FROM entry WHERE until IS NULL")}

    def newest_but(self, statuses: Container[bytes]) -> dict[bytes, Entry]:
        """The entries as of the last save, but those with one of these statuses."""
        rows = self._db.execute(f"SELECT {COLUMNS} FROM entry WHERE until IS NULL")
        return {row[1]: Entry(*row) for row in rows if row[6] not in statuses}

    def at(self, point: Point) -> dict[bytes, Entry]:
        """The entries at a point."""
        rows = self._db.execute(
            f"SELECT {COLUMNS} FROM entry WHERE since <= ? AND (until IS NULL OR until > ?)",
            (point.number, point.number),
        )
        return {row[1]: Entry(*row) for row in rows}

    def kept(self) -> list[bytes]:
        """Paths of the newest state whose content is not stored."""
        rows = self._db.execute("SELECT path FROM entry WHERE until IS NULL AND kept ORDER BY path")
        return [row[0] for row in rows]

    def add(
        self, number: int, found: Found, content: int | None = None, target: bytes | None = None, kept: bool = False
    ) -> None:
        """Add the version that this save found."""
        self._db.execute(
            f"INSERT INTO entry (since, {FOUND}, kept, content, target) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (number, *found, kept, content, target),
        )

    def end(self, entry: Entry, number: int) -> None:
        """A version is no more, as of this save."""
        self._db.execute("UPDATE entry SET until = ? WHERE id = ?", (number, entry.id))

    def refresh(self, entry: Entry, found: Found) -> None:
        """Note another status of the same version."""
        self._db.execute("UPDATE entry SET status = ? WHERE id = ?", (found.status, entry.id))

    # Contents

    def content_of(self, digest: bytes) -> int | None:
        """The content with this digest."""
        row = self._db.execute("SELECT id FROM content WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else int(row[0])

    def digest_of(self, content: int) -> bytes:
        """The digest of a content."""
        row = self._db.execute("SELECT digest FROM content WHERE id = ?", (content,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def new_content(self) -> int:
        """A content that has no digest yet."""
        return int(self._db.execute("INSERT INTO content (digest) VALUES (NULL)").lastrowid or 0)

    def add_piece(self, content: int, n: int, data: bytes) -> None:
        """Add a piece; one of zeros only is stored as its length."""
        hole = not data.strip(b"\0")
        self._db.execute("INSERT INTO piece VALUES (?, ?)", (content * PIECES + n, len(data) if hole else data))

    def set_digest(self, content: int, digest: bytes) -> None:
        """Complete a content."""
        self._db.execute("UPDATE content SET digest = ? WHERE id = ?", (digest, content))

    def remove_content(self, content: int) -> None:
        """Delete a content with its pieces."""
        first = content * PIECES
        self._db.execute("DELETE FROM piece WHERE id >= ? AND id < ?", (first, first + PIECES))
        self._db.execute("DELETE FROM content WHERE id = ?", (content,))

    def pieces(self, content: int) -> Iterator[bytes | int]:
        """The pieces in order; a number is so many zeros."""
        first = content * PIECES
        rows = self._db.execute("SELECT data FROM piece WHERE id >= ? AND id < ? ORDER BY id", (first, first + PIECES))
        return (row[0] for row in rows)

    # Room

    def used(self) -> int:
        """Bytes of the file that hold something."""
        pages, free, size = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def shrink(self) -> None:
        """Give pages that hold nothing back to the file system, some at a time. Not in a transaction."""
        # `execute` ends a statement without columns after its first step, which is one page.
        self._db.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])
