"""A search in its own process, so that an expression that never ends can be killed.

    python -I searcher.py, then one line: {"pattern", "regex", "glob", "matches", "characters"}

Searches the current folder and prints one line for each match, then whether there were more. Links are not followed.
It imports nothing of the agent, and of the volume only how to walk.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from app.volume.descent import Descent

SKIPPED_FOLDERS = {".git", "node_modules", "__pycache__", ".venv"}
FILE_BYTES = 4 * 1024 * 1024
LINE = 300
"""Characters printed of a match."""


def files(only: str) -> Iterator[tuple[str, bytes]]:
    """Each text file below the current folder, with its content."""
    with Descent(".") as place:
        path, (folders, names) = "", listed(place.folder)
        above: list[tuple[str, list[str]]] = []
        while True:
            for name in names:
                content = read(name, place.folder) if wanted(path + name, name, only) else b""
                if content and b"\0" not in content[:8192]:
                    yield path + name, content
            names = []
            if folders:
                name = folders.pop()
                with contextlib.suppress(OSError):
                    place.enter(name)
                    above.append((path, folders))
                    path += name + "/"
                    folders, names = listed(place.folder)
            elif above:
                place.leave()
                path, folders = above.pop()
            else:
                return


def listed(folder: int) -> tuple[list[str], list[str]]:
    """The names of a folder's folders, the last first, and those of all else."""
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    folders = {name for name, is_folder in kinds.items() if is_folder}
    return sorted(folders - SKIPPED_FOLDERS, reverse=True), sorted(kinds.keys() - folders)


def wanted(path: str, name: str, only: str) -> bool:
    """Whether a file's path or name matches, if it must."""
    return not only or fnmatch.fnmatch(path, only) or fnmatch.fnmatch(name, only)


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
