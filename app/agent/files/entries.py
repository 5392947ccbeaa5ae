"""What callers are told of a file, a folder or a link."""

from __future__ import annotations

import os
import stat
from typing import Any, NamedTuple

from app.agent.protocol import to_raw

EARLIEST, LATEST = 0.0, 9e10
"""Seconds since the epoch: of other times the nearer one is told."""


class Entry(NamedTuple):
    """At `path`, from the workspace's folder. `target` is a link's, "" for all else."""

    path: str
    status: os.stat_result
    target: str = ""

    def told(self) -> dict[str, Any]:
        """For an answer; the paths are raw (`to_raw`)."""
        regular = stat.S_ISREG(self.status.st_mode)
        return {
            "path": to_raw(self.path),
            "type": kind(self.status),
            "size": self.status.st_size if regular else None,
            "mode": f"{stat.S_IMODE(self.status.st_mode):03o}",
            "modified_at": min(max(EARLIEST, self.status.st_mtime), LATEST),
            "target": to_raw(self.target) if self.target else None,
            "etag": etag(self.status) if regular else None,
        }


def entry_of(path: str, name: str, folder: int) -> Entry:
    """What has this name in the open folder. Raises OSError."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return Entry(path, status, os.readlink(name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else "")


def kind(status: os.stat_result) -> str:
    if stat.S_ISDIR(status.st_mode):
        return "folder"
    if stat.S_ISLNK(status.st_mode):
        return "link"
    return "file" if stat.S_ISREG(status.st_mode) else "other"


def etag(status: os.stat_result) -> str:
    """Another one after each change: no program can set the time of the last one (ctime)."""
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_ctime_ns:x}"


def grew_from(status: os.stat_result, etag_before: str) -> bool:
    """Whether it is the same file, and not shorter, as when it had that etag."""
    inode, size, _ = etag_before.split("-")
    return status.st_ino == int(inode, 16) and status.st_size >= int(size, 16)
