"""What a sleep or a delete would interrupt or leave behind: unsaved changes, work git has in no other place, running
jobs. Asked for before the workspace is stopped, so it answers within its time, with as much as it found by then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.agent.activity import FOLDER, TERMINALS, UNSAVED, read_json
from app.agent.settings import STATE_FOLDER
from app.agent.tools import child

SECONDS = 4.0
"""For all of it; who asks waits a little longer."""

REPOSITORIES = 20
DEPTH = 2
"""Folders below the workspace's own that are looked at for repositories."""

ENTRIES = 200
"""Of a folder, that are looked at."""

NAMES = 20
NAME_LENGTH = 200
COMMITS = 100

GIT = ("git", "-c", "core.fsmonitor=false", "-c", "safe.directory=*", "--no-optional-locks")
"""No program of the repository's own is run for this, where git offers not to."""

CHANGES = (*GIT, "status", "--porcelain=v1", "-z", "--no-renames", "--ignore-submodules=dirty")
OURS = ("--", ".", f":(exclude){STATE_FOLDER}")
"""The conversation is no work that git should have."""

UNPUSHED = (*GIT, "log", "-z", f"--max-count={COMMITS}", "--format=%h %s", "--branches", "--not", "--remotes")
STASHES = (*GIT, "stash", "list", "-z", "--format=%gs")


def at_risk(folder: Path, home: Path, environment: Mapping[str, str], seconds: float = SECONDS) -> dict[str, Any]:
    """`{"unsaved", "uncommitted", "unpushed", "jobs": {"count", "names"}, "complete"}`, what there is none of left
    out. `names` are the first few; `complete` whether there was time to look at all."""
    deadline = time.monotonic() + seconds
    signs = home / FOLDER
    uncommitted: list[str] = []
    unpushed: list[str] = []
    complete = True
    for repository in repositories(folder, deadline):
        prefix = "" if repository == folder else f"{repository.relative_to(folder)}/"
        for command, found, skip in ((CHANGES + OURS, uncommitted, 3), (UNPUSHED, unpushed, 0), (STASHES, unpushed, 0)):
            lines = _lines(command, repository, environment, deadline)
            complete = complete and lines is not None
            found += [prefix + line[skip:] for line in lines or ()]
    complete = complete and time.monotonic() < deadline
    risks = {
        "unsaved": _texts(read_json(signs / UNSAVED).get("names")),
        "uncommitted": uncommitted,
        "unpushed": unpushed,
        "jobs": _texts(read_json(signs / TERMINALS).get("jobs")),
    }
    return {name: _counted(found) for name, found in risks.items() if found} | {"complete": complete}


def repositories(folder: Path, deadline: float) -> list[Path]:
    """The git repositories in a folder and a little below, as many as are found by the deadline (monotonic)."""
    found = []
    for candidate in _folders(folder, DEPTH):
        if (candidate / ".git").exists():
            found.append(candidate)
        if len(found) == REPOSITORIES or time.monotonic() > deadline:
            break
    return found


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if not depth:
        return
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry, _ in zip(entries, range(ENTRIES), strict=False) if _plain(entry)]
    except OSError:
        return
    for name in sorted(names):
        yield from _folders(folder / name, depth - 1)


def _plain(entry: os.DirEntry[str]) -> bool:
    skipped = entry.name.startswith(".") or entry.name == "node_modules"
    return not skipped and entry.is_dir(follow_symlinks=False)


def _lines(command: Sequence[str], folder: Path, environment: Mapping[str, str], deadline: float) -> list[str] | None:
    """The answer of git, None when it gave none in time."""
    left = deadline - time.monotonic()
    if left <= 0:
        return None
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            reply = child.ask(command, b"", seconds=left, stop=lambda: False, environment=environment, folder=fd)
        finally:
            os.close(fd)
    except OSError:
        return None
    if reply.ended or reply.code:
        return None
    return [line for line in reply.output.decode(errors="replace").split("\0") if line]


def _texts(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _counted(found: Sequence[str]) -> dict[str, Any]:
    return {"count": len(found), "names": [name[:NAME_LENGTH] for name in found[:NAMES]]}
