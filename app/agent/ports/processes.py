"""What is told of processes that listen: their names, and whether they are a workspace's."""

from __future__ import annotations

import os
from collections.abc import Iterable

from app.volume.environment import started_with

THREAD = "MainThread"
"""What Node calls its first thread, and with it the process."""

NAME_CHARACTERS = 64

READ_BYTES = 4_096


def name_of(pid: int) -> str | None:
    """The name of a process, without what can't be shown; None if it has ended, or shows none."""
    name = _read(pid, "comm").decode("utf-8", "replace").removesuffix("\n")
    if name == THREAD:
        name = os.path.basename(_read(pid, "cmdline").split(b"\0")[0].decode("utf-8", "replace")) or name
    return "".join(c for c in name if c.isprintable())[:NAME_CHARACTERS] or None


def started_in(uuid: str, pids: Iterable[int]) -> set[int]:
    """Those processes that were started in this workspace, by its mark in their environment or in that of one above
    them: some servers write over their own, as Redis does."""
    above = {pid: _line(pid) for pid in pids}
    mark = f"\0WORKSPACE_UUID={uuid}\0".encode()
    marked = started_with(lambda environment: mark in environment, {each for line in above.values() for each in line})
    return {pid for pid, line in above.items() if not marked.isdisjoint(line)}


def _line(pid: int) -> list[int]:
    """A process and those above it, itself first."""
    line: list[int] = []
    while pid and pid not in line:
        line.append(pid)
        # The name in parentheses may hold anything; the parent is the second field after it.
        fields = _read(pid, "stat").rpartition(b")")[2].split()
        pid = int(fields[1]) if fields else 0
    return line


def _read(pid: int, name: str) -> bytes:
    """A file of a process; nothing if it has ended."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(READ_BYTES)
    except OSError:
        return b""
