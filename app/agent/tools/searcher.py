"""A search in its own process, so that an expression that never ends can be killed.

    python -I searcher.py, then one line: {"pattern", "regex", "glob", "matches", "characters"}

Searches the current folder and prints one line for each match, then whether there were more. Links are not followed.
It imports nothing of the agent.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator

SKIPPED_FOLDERS = {".git", "node_modules", "__pycache__", ".venv"}
FILE_BYTES = 4 * 1024 * 1024
LINE = 300
"""Characters printed of a match."""


def files(only: str) -> Iterator[tuple[str, bytes]]:
    """Each text file below the current folder, with its content."""
    for folder, folders, names, fd in os.fwalk(".", follow_symlinks=False):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        for name in sorted(names):
            path = os.path.normpath(os.path.join(folder, name))
            if only and not (fnmatch.fnmatch(path, only) or fnmatch.fnmatch(name, only)):
                continue
            content = read(name, fd)
            if content and b"\0" not in content[:8192]:
                yield path, content


def read(name: str, folder: int) -> bytes:
    """The content of a regular file of at most FILE_BYTES, else nothing."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return b""
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > FILE_BYTES:
            return b""
        return file.read(FILE_BYTES)


def finder(pattern: str, regex: bool) -> Callable[[str], bool]:
    """Whether a line matches."""
    if not regex:
        return lambda line: pattern in line
    compiled = re.compile(pattern)
    return lambda line: compiled.search(line) is not None


def main() -> int:
    """Search and print."""
    order = json.loads(sys.stdin.readline())
    try:
        matches = finder(order["pattern"], order["regex"])
    except re.error as e:
        print(f"not a regular expression: {e}")
        return 2
    found = shown = 0
    for path, content in files(order["glob"]):
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if not matches(line):
                continue
            found += 1
            text = f"{path}:{number}: {line.strip()[:LINE]}"
            if found > order["matches"] or shown + len(text) > order["characters"]:
                print("[… more matches; search for something narrower]")
                return 0
            shown += len(text)
            print(text, flush=True)
    if not found:
        print("no matches")
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())
