"""What a stop of the workspace would put at risk, with a real git."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.agent import unsaved_work
from app.agent.activity_reporter import FOLDER, TERMINALS, UNSAVED
from app.agent.tools.orphans import MARK, marked_processes
from app.agent.unsaved_work import find_unsaved_work
from tests.unit.agent.process import AgentProcess

ADA = {f"GIT_{role}_{what}": "ada@x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENVIRONMENT = {"PATH": os.environ["PATH"], **ADA}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    return tmp_path / "app"


def git(folder: Path, *arguments: str) -> None:
    home = {"HOME": str(folder.parent)}
    subprocess.run(["git", *arguments], cwd=folder, env=ENVIRONMENT | home, check=True, capture_output=True, timeout=60)


def repository(folder: Path) -> Path:
    """One with a commit that a remote has."""
    folder.mkdir(exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "old").write_text("old")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    remote = folder.parent / f".{folder.name}.git"
    git(folder, "init", "-q", "--bare", str(remote))
    git(folder, "remote", "add", "origin", str(remote))
    git(folder, "push", "-q", "origin", "main")
    return folder


def asked(folder: Path) -> dict[str, Any]:
    return find_unsaved_work(folder, folder.parent, ENVIRONMENT)


def test_what_a_profile_says_is_no_unsaved_work(folder: Path) -> None:
    """Git is not asked by the user's login shell."""
    repository(folder)
    (folder.parent / ".profile").write_text("printf 'welcome\\0home\\0'\n")
    assert find_unsaved_work(folder, folder.parent, ENVIRONMENT | {"HOME": str(folder.parent)}) == {"complete": True}


def test_a_clean_workspace_risks_nothing(folder: Path) -> None:
    assert asked(folder) == {"complete": True}
    repository(folder)
    assert asked(folder) == {"complete": True}


@pytest.mark.slow
def test_changes_commits_and_stashes_that_no_remote_has_are_told(folder: Path) -> None:
    """Also of a repository below; its files with the path to it."""
    repository(folder)
    inner = repository(folder / "inner")
    (folder / ".gitignore").write_text("inner\n.inner.git\n")
    (folder / "old").write_text("changed")
    git(folder, "stash", "-q")
    (folder / "new file").write_text("new")
    (inner / "more").write_text("more")
    git(inner, "add", "-A")
    git(inner, "commit", "-qm", "second")
    told = asked(folder)
    assert told["uncommitted"] == {"count": 2, "names": [".gitignore", "new file"]}
    assert told["unpushed"]["count"] == 2
    stash, commit = told["unpushed"]["names"]
    assert stash.startswith("WIP on main") and commit.startswith("inner/") and commit.endswith(" second")


def test_unsaved_files_and_running_jobs_come_from_beside_the_editor(folder: Path) -> None:
    signs = folder.parent / FOLDER
    signs.mkdir(parents=True)
    (signs / UNSAVED).write_text(json.dumps({"names": ["a.py", 7, "Untitled-1"]}))
    (signs / TERMINALS).write_text(json.dumps({"jobs": ["make", "sleep"]}))
    told = asked(folder)
    assert told["unsaved"] == {"count": 2, "names": ["a.py", "Untitled-1"]}
    assert told["jobs"] == {"count": 2, "names": ["make", "sleep"]}


def test_only_the_first_names_of_many_are_told_and_all_are_counted(folder: Path) -> None:
    repository(folder)
    for number in range(500):
        (folder / f"{'n' * 180}{number:03}").touch()
    told = asked(folder)["uncommitted"]
    assert (told["count"], len(told["names"])) == (500, unsaved_work.NAMES)


def test_without_time_it_answers_with_what_it_has(folder: Path) -> None:
    repository(folder)
    (folder / "new").touch()
    assert find_unsaved_work(folder, folder.parent, ENVIRONMENT, seconds=0.0) == {"complete": False}


def test_a_broken_repository_is_told_as_not_looked_at(folder: Path) -> None:
    (folder / ".git").mkdir()
    assert asked(folder) == {"complete": False}


def test_no_program_of_the_repository_is_run(folder: Path) -> None:
    repository(folder)
    git(folder, "config", "core.fsmonitor", f"touch {folder.parent}/ran; false")
    asked(folder)
    assert not (folder.parent / "ran").exists()


ABOVE = "p=$PPID; while ! grep -q -- {} /proc/$p/cmdline; do read -r _ _ _ p _ </proc/$p/stat; done; "
"""A shell's search for a process among those it was started by."""

GIT, RUNNER = ABOVE.format("--no-optional-locks"), ABOVE.format("runner.py")

DISTURBING = {
    "ends the process that watches it": f"{RUNNER} kill -9 $p; sleep 1000",
    "writes lines of its own": rf"{GIT} printf '0\0?? own\0' >/proc/$p/fd/1",
    "answers in the place of that": f"{RUNNER} printf '{{}}' >/proc/$p/fd/1; kill -9 $p; sleep 1000",
    "writes more than is read": f"{GIT} head -c 3000000 /dev/zero >/proc/$p/fd/1",
    "does not end": "sleep 1000 & sleep 1000",
}


@pytest.mark.slow
@pytest.mark.parametrize("program", DISTURBING.values(), ids=DISTURBING.keys())
def test_a_look_that_a_repositorys_program_disturbs_is_not_called_complete(folder: Path, program: str) -> None:
    """git runs it to compare a file. Nothing of it is left."""
    repository(folder)
    script = folder.parent / "program"
    script.write_text(f"touch {folder.parent}/ran; {program}; cat")
    git(folder, "config", "filter.disturbing.clean", f"sh {script}")
    (folder / ".gitattributes").write_text("old filter=disturbing\n")
    (folder / "old").write_text("new")
    mark = f"test-{os.getpid()}"
    told = find_unsaved_work(folder, folder.parent, ENVIRONMENT | {MARK: mark}, seconds=3.0)
    assert (folder.parent / "ran").exists()
    assert told["complete"] is False
    assert marked_processes(mark) == []


@pytest.mark.slow
def test_an_agent_answers_what_is_at_risk(agent: AgentProcess) -> None:
    agent.start()
    repository(agent.folder)
    (agent.folder / "new").touch()
    status, told = agent.call("POST", "/unsaved-work", {})
    assert (status, told["uncommitted"]["count"]) == (200, 1)
