"""Finds unsaved work before a sleep or a delete: unsaved files, uncommitted and unpushed changes, running jobs.

The manager waits for the answer, so the search stops at its time limit and returns what it has found. git runs as the
agent's commands do, since a repository can name programs that git runs (`filter.*.clean`).
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.agent.activity_reporter import FOLDER, TERMINALS, UNSAVED, read_json
from app.agent.documents import strings
from app.agent.tools.command import run_shell
from app.agent.tools.sandbox_path import ToolError

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

OUTPUT = 1_048_576
"""Bytes that are read of git's output."""

GRACE = 1.0
"""Seconds for the runner to end everything, after those of the search."""

GIT = 'git -c core.fsmonitor=false -c "safe.directory=*" --no-optional-locks -C "$1"'
LOOKS = (
    ("uncommitted", "status --porcelain=v1 -z --no-renames --ignore-submodules=dirty", len("?? ")),
    ("unpushed", f"log -z --max-count={COMMITS} '--format=%h %s' --branches --not --remotes", 0),
    ("unpushed", "stash list -z '--format=- %gs'", len("- ")),
)
"""What git is asked of each repository: the kind of what it tells, its arguments, and how many characters of each line
are no name. Every line has a blank."""

NUL = "\\x00"
"""How the runner writes the end of each of git's lines."""


def find_unsaved_work(
    folder: Path, home: Path, environment: Mapping[str, str], hidden: Path | None = None, seconds: float = SECONDS
) -> dict[str, Any]:
    """`{"unsaved", "uncommitted", "unpushed", "jobs": {"count", "names"}, "complete"}` without empty kinds.

    `names` are the first few; `complete` says whether the search ended within `seconds`. `environment` and `hidden` are
    those of commands.
    """
    deadline = time.monotonic() + seconds
    signals = home / FOLDER
    found = repositories(folder, deadline)
    told, complete = _ask_git(folder, found, environment, hidden, deadline - time.monotonic()) if found else ({}, True)
    risks = {
        "unsaved": strings(read_json(signals / UNSAVED).get("names")),
        **told,
        "jobs": strings(read_json(signals / TERMINALS).get("jobs")),
    }
    complete = complete and time.monotonic() < deadline
    return {name: _summary(names) for name, names in risks.items() if names} | {"complete": complete}


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


def _ask_git(
    folder: Path, found: Sequence[Path], environment: Mapping[str, str], hidden: Path | None, seconds: float
) -> tuple[dict[str, list[str]], bool]:
    """What git tells of these repositories, by kind, and whether that is all."""
    told: dict[str, list[str]] = {kind: [] for kind, *_ in LOOKS}
    if seconds <= 0:
        return told, False
    paths = [os.path.relpath(repository, folder) for repository in found]
    looks = [(told[kind], skip, "" if path == "." else f"{path}/") for path in paths for kind, _, skip in LOOKS]
    try:
        answer = run_shell(
            _script(paths), folder, seconds=seconds, environment=environment, hidden=hidden, head=OUTPUT, grace=GRACE
        )
    except ToolError:
        return told, False
    done = 0
    complete = not answer["ended"] and not answer["omitted"]
    for line in answer["head"].split(NUL)[:-1]:
        if line.isdecimal():
            done += 1
            complete = complete and line == "0"
        elif done < len(looks):
            names, skip, prefix = looks[done]
            names.append(prefix + line[skip:])
    return told, complete and done == len(looks)


def _script(paths: Sequence[str]) -> str:
    """A shell's script that prints git's lines, and after those of each command its exit status."""
    asked = "".join(f"  {GIT} {arguments}; printf '%s\\0' $?\n" for _, arguments, _ in LOOKS)
    return f"exec 2>/dev/null\nlook() {{\n{asked}}}\n" + "".join(f"look {shlex.quote(path)}\n" for path in paths)


def _summary(found: Sequence[str]) -> dict[str, Any]:
    return {"count": len(found), "names": [name[:NAME_LENGTH] for name in found[:NAMES]]}
