"""Durable writes: documents replaced as a whole, and an append-only journal.

A step of a turn appends a line to the journal, at the same cost however long the conversation is. At the end of a
turn the documents are rewritten and the journal is cleared. A crash in between leaves lines that the documents already
contain; replaying them changes nothing.

What the workspace's user may have written is read here too: it may be anything.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

DOCUMENT_BYTES = 1_048_576
"""Of a document in the user's reach at most; a longer one is not ours."""


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_document(path: Path, document: Any, *, durable: bool = True) -> None:
    """Replace a JSON document atomically. If `durable`, the new one is on disk on return."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="replace") as file:
            json.dump(document, file, ensure_ascii=False, separators=(",", ":"))
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def read_file(path: Path, offset: int, most: int) -> bytes:
    """Bytes of a file; none where it can't be read. The workspace's user may have put anything in its place."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(fd, most, offset)
    except OSError:
        return b""
    finally:
        os.close(fd)


def read_document(path: Path, types: Mapping[str, type | UnionType]) -> dict[str, Any] | None:
    """The JSON object in a file in the user's reach, None if it has not these types."""
    try:
        document = json.loads(read_file(path, 0, DOCUMENT_BYTES))
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not all(
        name in document and isinstance(document[name], kind) for name, kind in types.items()
    ):
        return None
    return document


class Journal:
    """JSON objects, one a line, each on disk before `add` returns. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._end = 0

    def open(self) -> list[dict[str, Any]]:
        """Open or create the file and return its entries. It is truncated at the first torn or invalid line."""
        self.close()
        self._end = 0
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(self._fd, "rb", closefd=False) as file:
            content = file.read()
        entries: list[dict[str, Any]] = []
        for line in content.splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or not isinstance(entry, dict):
                break
            entries.append(entry)
            self._end += len(line)
        if self._end < len(content):
            os.ftruncate(self._fd, self._end)
        sync_folder(self._path.parent)
        return entries

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry. OSError (a full disk) leaves the journal unchanged."""
        data = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], self._end + written)
            os.fsync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise
        self._end += len(data)

    def clear(self) -> None:
        """Remove all entries: the documents contain them."""
        os.ftruncate(self._fd, 0)
        os.fsync(self._fd)
        self._end = 0

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._end

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
