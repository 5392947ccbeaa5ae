"""Completion of sessionctl's commands, in a bash of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

BASH = shutil.which("bash") or "bash"


@pytest.fixture
def bash(tmp_path: Path) -> dict[str, str]:
    """The variables of a shell with sessionctl in its PATH, and a HOME of its own."""
    programs, home = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    home.mkdir()
    program = programs / "sessionctl"
    program.write_text(f"#!{sys.executable}\nfrom workspaces.cli.app import main\nmain()\n")
    program.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "PYTHONPATH": str(ROOT / "clients/python"), "TERM": "dumb"}


def run(bash: dict[str, str], script: str) -> str:
    # The shell waits for each command, as a person's does: sessionctl looks for the shell among its parents.
    done = subprocess.run(
        [BASH, "--norc", "-c", f"{script}\ntrue"], env=bash, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


COMPLETE = """
COMP_WORDS=(sessionctl {words})
COMP_CWORD={at}
$(complete -p sessionctl | sed 's/.*-F \\([^ ]*\\) .*/\\1/') sessionctl
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "at", "found"), [("wak", 1, "wake"), ("dead-letters dr", 2, "drop"), ("backup --ti", 2, "--timeout")]
)
def test_a_shell_completes_commands_and_options(bash: dict[str, str], words: str, at: int, found: str) -> None:
    script = 'eval "$(sessionctl --show-completion bash)"' + COMPLETE.format(words=words, at=at)
    assert run(bash, script).split() == [found]


def test_completion_is_installed_for_the_next_shell(bash: dict[str, str]) -> None:
    run(bash, "sessionctl --install-completion")
    script = f'source "$HOME/.bashrc"\n{COMPLETE.format(words="restore-point", at=1)}'
    assert set(run(bash, script).split()) == {"restore-point", "restore-points"}
