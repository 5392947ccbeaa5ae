"""The command `keep` of terminals, app/editor/keep: what it runs, and what it says. tests/unit/editor/test_terminals.py
shows that it is seen."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import ROOT
from tests.waiting import PATIENCE


def keep(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Its exit code, what it prints, and what it says."""
    command = [str(ROOT / "app" / "editor" / "keep"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment | {"PATH": "/usr/bin:/bin"}, timeout=PATIENCE
    )
    return done.returncode, done.stdout, done.stderr


def test_a_command_runs_with_its_arguments_as_they_are_and_its_exit_code_is_that_of_keep() -> None:
    assert keep("5", "--", "printf", "%s|", "a b", "*", "--") == (0, "a b|*|--|", "")
    assert keep("5", "--", "sh", "-c", "exit 7") == (7, "", "")
    assert keep("5", "--", "no-such-command")[0] == 127


@pytest.mark.parametrize("arguments", [(), ("5",), ("5", "--"), ("5", "make"), ("--", "make"), ("5", "-", "make")])
def test_a_wrong_call_says_what_to_do_and_runs_nothing(arguments: tuple[str, ...]) -> None:
    code, printed, said = keep(*arguments)
    assert (code, printed) == (2, "")
    assert said.startswith("keep: ") and said.endswith("Usage: keep MINUTES -- COMMAND [ARGUMENT...]\n")


@pytest.mark.parametrize("minutes", ["0", "-5", "1.5", "5m", "05", "100000", "", "5 5", "*", "$(id)"])
def test_minutes_are_a_whole_number(minutes: str) -> None:
    code, printed, said = keep(minutes, "--", "echo", "ran")
    assert (code, printed) == (2, "")
    assert "MINUTES must" in said


def test_more_than_may_be_asked_for_is_cut_and_said() -> None:
    assert keep("61", "--", "echo", "ran", KEEPALIVE_MAX="3600") == (
        0,
        "ran\n",
        "keep: the longest time here is 60 minutes; the workspace stays awake for that long.\n",
    )
    assert keep("60", "--", "echo", "ran", KEEPALIVE_MAX="3600") == (0, "ran\n", "")
