"""What is in a project's folder: one walk that reads every name and status, and no content."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FILE, FOLDER, LINK = "file", "folder", "link"

FIND = "/usr/bin/find"
"""GNU find: a walk in Python takes more processor time, and find runs beside us. By its path: PATH is the user's."""

TIMES = "%m %s %T@ %C@ %i %P\\0"
RULES = (
    *("-mindepth", "1"),
    *("(", "-type", "d", "(", "!", "-readable", "-o", "!", "-executable", ")", "-printf", "u %m %P\\0", "-prune", ")"),
    *("-o", "(", "-type", "d", "-printf", "d %m %P\\0", ")"),
    *("-o", "(", "-type", "f", "-printf", f"f {TIMES}", ")"),
    *("-o", "(", "-type", "l", "-printf", f"l {TIMES}", ")"),
)
"""A line for each entry: its kind, which is `u` for a folder that can't be read, mode, and but for folders size,
mtime, ctime and inode; then its path. A line says of an entry all that an undo point compares."""

KINDS = {b"f": FILE, b"d": FOLDER, b"u": FOLDER, b"l": LINK}

CHUNK = 1 << 18

MOST_ENTRIES = 500_000
"""A walk of so many takes seconds, and their list some 200 MB."""


class TooMany(Exception):
    """The folder has more entries than `MOST_ENTRIES`."""


class Found(NamedTuple):
    """A file, folder or link at a path below the project's folder. `status` is its line: the same as long as nothing
    changed, since no program can set the ctime. Times are in ns; a folder's, and its size, are 0."""

    path: bytes
    kind: str
    mode: int
    size: int
    mtime: int
    status: bytes

    @property
    def unreadable(self) -> bool:
        """Whether it is a folder whose content can't be read."""
        return self.status.startswith(b"u")


def lines(root: Path) -> set[bytes]:
    """A line for everything below the folder but sockets, pipes and devices. Links are not followed. What disappears
    meanwhile is left out. Raises TooMany, and OSError if the folder itself can't be read."""
    os.close(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
    ours, its = os.pipe()
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, its, 1),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    try:
        pid = os.posix_spawn(FIND, [FIND, os.fspath(root), *RULES], {"LC_ALL": "C"}, file_actions=actions)
    finally:
        os.close(its)
    try:
        with open(ours, "rb", 0) as output:
            found = set(_split(output.fileno()))
    finally:
        # It ends at the latest when it writes to nobody.
        _, ended = os.waitpid(pid, 0)
    # Its exit status is 1 where something disappeared meanwhile, too.
    if os.WIFSIGNALED(ended):
        raise OSError(errno.EIO, "the walk was broken off")
    return found


def _split(fd: int) -> Iterator[bytes]:
    rest, count = b"", 0
    while data := os.read(fd, CHUNK):
        *whole, rest = (rest + data).split(b"\0")
        count += len(whole)
        if count > MOST_ENTRIES:
            raise TooMany
        yield from whole


def parse(line: bytes) -> Found:
    """The entry of a line."""
    kind = KINDS[line[:1]]
    if kind == FOLDER:
        _, mode, path = line.split(b" ", 2)
        return Found(path, kind, int(mode, 8), 0, 0, line)
    _, mode, size, mtime, _, _, path = line.split(b" ", 6)
    seconds, _, fraction = mtime.partition(b".")
    return Found(path, kind, int(mode, 8), int(size), int(seconds) * 10**9 + int(fraction[:9]), line)


def path_of(line: bytes) -> bytes:
    """The path in a line."""
    return line.split(b" ", 2 if line[:1] in b"du" else 6)[-1]


def size_of(line: bytes) -> int:
    """The bytes of the file in a line."""
    return int(line.split(b" ", 3)[2]) if line[:1] == b"f" else 0


def file_of(path: bytes, status: os.stat_result) -> Found | None:
    """The file of this status, as a walk would find it; None for what is no file."""
    if not stat.S_ISREG(status.st_mode):
        return None
    mode = stat.S_IMODE(status.st_mode)
    times = b" ".join(b"%d.%09d0" % divmod(time, 10**9) for time in (status.st_mtime_ns, status.st_ctime_ns))
    line = b"f %o %d %s %d %s" % (mode, status.st_size, times, status.st_ino, path)
    return Found(path, FILE, mode, status.st_size, status.st_mtime_ns, line)
