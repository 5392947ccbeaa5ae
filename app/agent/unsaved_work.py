"""Finds unsaved work before a sleep or a delete: unsaved files, uncommitted and unpushed changes, running jobs.

The manager waits for the answer, so the search stops at its time limit and returns what it has found.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.agent.activity import FOLDER, TERMINALS, UNSAVED, read_json
from app.agent.documents import strings
from app.agent.tools import child

SECONDS = 4.0
"""Limit of the whole search; the manager waits a little longer."""

REPOSITORIES = 20
DEPTH = 2
"""Levels of folders below the workspace's own that are searched for repositories."""

ENTRIES = 200
"""Entries of a folder that are searched."""

NAMES = 20
NAME_LENGTH = 200
COMMITS = 100

GIT = ("git", "-c", "core.fsmonitor=false", "-c", "safe.directory=*", "--no-optional-locks")
"""Runs no program configured by the repository, as far as git allows."""

CHANGES = (*GIT, "status", "--porcelain=v1", "-z", "--no-renames", "--ignore-submodules=dirty")
UNPUSHED = (*GIT, "log", "-z", f"--max-count={COMMITS}", "--format=%h %s", "--branches", "--not", "--remotes")
STASHES = (*GIT, "stash", "list", "-z", "--format=%gs")


def find_unsaved_work(
    folder: Path, home: Path, environment: Mapping[str, str], seconds: float = SECONDS
) -> dict[str, Any]:
    """`{"unsaved", "uncommitted", "unpushed", "jobs": {"count", "names"}, "complete"}` without empty kinds.

    `names` are the first few; `complete` says whether the search ended within `seconds`.
    """
    deadline = time.monotonic() + seconds
    signals = home / FOLDER
    uncommitted: list[str] = []
    unpushed: list[str] = []
    complete = True
    for repository in repositories(folder, deadline):
        prefix = "" if repository == folder else f"{repository.relative_to(folder)}/"
        for command, found, skip in ((CHANGES, uncommitted, 3), (UNPUSHED, unpushed, 0), (STASHES, unpushed, 0)):
            lines = _git_lines(command, repository, environment, deadline)
            complete = complete and lines is not None
            found += [prefix + line[skip:] for line in lines or ()]
    complete = complete and time.monotonic() < deadline
    risks = {
        "unsaved": strings(read_json(signals / UNSAVED).get("names")),
        "uncommitted": uncommitted,
        "unpushed": unpushed,
        "jobs": strings(read_json(signals / TERMINALS).get("jobs")),
    }
    return {name: _summary(found) for name, found in risks.items() if found} | {"complete": complete}


def repositories(folder: Path, deadline: float) -> list[Path]:
    """The git repositories in a folder and `DEPTH` levels below, found by the deadline (monotonic)."""
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


def _git_lines(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], deadline: float
) -> list[str] | None:
    """The output of git, None if it failed or was late."""
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


def _summary(found: Sequence[str]) -> dict[str, Any]:
    return {"count": len(found), "names": [name[:NAME_LENGTH] for name in found[:NAMES]]}
