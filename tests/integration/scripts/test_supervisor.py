"""The supervisor keeps a program running, lets it go when told to, and forks those that have Python in common."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from scripts.lib.data_dir import StartError, only_run
from scripts.lib.launch import FORKED
from tests.conftest import ROOT
from tests.waiting import wait_for

DEADLINE = 60.0
SILENCE = 4
"""s that a program may be silent: also on a busy machine it has started by then."""


class Supervised:
    """A command under a supervisor; the pid it has by the pid file."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.file = folder / "pids" / "thing.pid"
        beat = {"HEARTBEAT_FILE": str(folder / "pids" / "thing.heartbeat")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.supervised", str(folder), *arguments],
            cwd=ROOT,
            env=os.environ | {"PROCESS_NAME": "thing"} | beat,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pid(self) -> int:
        wait_for(lambda: self.file.exists() and self.file.read_text().endswith("\n"), "a pid file", interval=0.02)
        return int(self.file.read_text())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Keeps a command running until the test ends."""
    made: list[Supervised] = []

    def make(*arguments: str) -> Supervised:
        made.append(Supervised(tmp_path, *arguments))
        return made[-1]

    yield make
    for one in made:
        one.process.terminate()
        one.process.communicate(timeout=DEADLINE)


@pytest.fixture
def supervised(kept: Callable[..., Supervised]) -> Callable[..., Supervised]:
    """Keeps a piece of Python running, in an interpreter of its own."""
    return lambda code, *options: kept(*options, sys.executable, "-u", "-c", code)


@pytest.fixture
def forked(kept: Callable[..., Supervised]) -> Callable[..., Supervised]:
    """Keeps a module running, in a fork of the supervisor."""
    return lambda *arguments: kept("python", "-m", "tests.integration.scripts.of_a_fork", *arguments)


def test_a_killed_command_is_started_again(supervised):
    """SIGKILL of the command, not of the supervisor, brings a new one with a new process id."""
    thing = supervised("import time; print('up'); time.sleep(60)")
    assert thing.line() == "up"
    first = thing.pid()
    os.kill(first, signal.SIGKILL)
    assert "ended with -9" in thing.line()
    assert thing.line() == "up"
    assert thing.pid() != first


def test_what_a_dead_command_leaves_in_its_group_is_killed_before_the_next_start(supervised):
    """A child that outlives its killed parent would hold the parent's port, or its task."""
    thing = supervised(
        "import subprocess, time; child = subprocess.Popen(['sleep', '60']); print(child.pid); time.sleep(60)"
    )
    child = psutil.Process(int(thing.line()))
    os.kill(thing.pid(), signal.SIGKILL)
    assert "ended with -9" in thing.line()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child ended", interval=0.02)


def test_sigterm_reaches_the_command_and_ends_the_supervision(supervised):
    """An orderly stop: the command ends in its own way, nothing is started again, the exit code is 0."""
    thing = supervised(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(3)))\n"
        "print('up'); time.sleep(60)"
    )
    assert thing.line() == "up"
    thing.process.terminate()
    assert thing.line() == "bye"
    assert thing.process.wait(DEADLINE) == 0
    assert thing.line() == ""
    assert not thing.file.exists()


def test_a_command_that_ignores_sigterm_is_killed(supervised):
    """Nothing outlives the grace period."""
    thing = supervised(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(60)"
    )
    assert thing.line() == "up"
    command = psutil.Process(thing.pid())
    thing.process.terminate()
    assert thing.process.wait(DEADLINE) == 0
    assert not command.is_running()


def test_a_stop_is_heeded_between_two_starts(supervised):
    """SIGTERM before the command is started again ends the supervisor at once. No process has its id meanwhile."""
    thing = supervised("raise SystemExit(5)")
    for _ in range(4):
        assert "ended with 5" in thing.line()
    thing.process.terminate()
    assert thing.process.wait(DEADLINE) == 0
    assert not thing.file.exists()


def test_a_command_that_does_not_exist_is_an_error_not_a_loop(kept):
    """A misspelt Procfile must not look like a process that dies."""
    thing = kept("no-such-command")
    printed, said = thing.process.communicate(timeout=DEADLINE)
    assert thing.process.returncode == 1
    assert "no-such-command" in said
    assert printed == ""


def test_a_command_that_can_not_be_started_again_is_tried_until_it_can(kept, tmp_path):
    """Its program is replaced, or there is no memory for it: the other programs go on meanwhile."""
    program, away = tmp_path / "program", tmp_path / "away"
    program.write_text("#!/bin/sh\necho up\nexec sleep 60\n")
    program.chmod(0o755)
    thing = kept(str(program))
    assert thing.line() == "up"
    program.rename(away)
    os.kill(thing.pid(), signal.SIGKILL)
    assert "ended with -9" in thing.line()
    for _ in range(3):
        assert "can't be started: No such file or directory" in thing.line()
    away.rename(program)
    while "can't be started" in (line := thing.line()):
        pass
    assert line == "up"


BEATING = (
    "import os, pathlib, time\nprint('up')\n"
    "while True: pathlib.Path(os.environ['HEARTBEAT_FILE']).touch(); time.sleep(0.1)"
)


def test_a_command_that_hangs_is_killed_and_started_again(supervised):
    """It lives and does nothing: its heartbeat stands still."""
    thing = supervised(BEATING, "--heartbeat", str(SILENCE))
    assert thing.line() == "up"
    first = thing.pid()
    os.kill(first, signal.SIGSTOP)
    assert "no heartbeat" in thing.line()
    assert "ended with -9" in thing.line()
    assert thing.line() == "up"
    assert thing.pid() != first


def test_a_command_that_beats_is_left_alone(supervised, tmp_path):
    """For longer than it may be silent; then it is told to end in order, as any other."""
    thing = supervised(BEATING, "--heartbeat", str(SILENCE))
    assert thing.line() == "up"
    first, beat, began = thing.pid(), tmp_path / "pids" / "thing.heartbeat", time.time()
    wait_for(lambda: beat.exists() and beat.stat().st_mtime > began + 1.5 * SILENCE, "heartbeats")
    assert thing.pid() == first
    thing.process.terminate()
    assert thing.process.wait(DEADLINE) == 0
    assert thing.line() == ""


def test_a_command_that_never_beats_is_killed_too(supervised, tmp_path):
    """Whatever the one before it left."""
    (tmp_path / "pids").mkdir()
    (tmp_path / "pids" / "thing.heartbeat").touch()
    thing = supervised("import time; print('up'); time.sleep(60)", "--heartbeat", str(SILENCE))
    assert thing.line() == "up"
    assert "no heartbeat" in thing.line()


def test_what_is_printed_comes_line_by_line(supervised):
    """However it was written, and from whichever process of the program."""
    thing = supervised(
        "import os, subprocess, time\n"
        "os.write(1, b'one\\ntw'); time.sleep(0.3); os.write(2, b'o\\nthree \\xff\\n')\n"
        "subprocess.run(['echo', 'four']); time.sleep(60)"
    )
    assert [thing.line() for _ in range(4)] == ["one", "two", "three \ufffd", "four"]


def test_a_program_that_prints_much_is_read_while_it_is_told_to_end(supervised):
    """A full pipe would keep it from ending."""
    thing = supervised(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print(('x' * 99 + '\\n') * 40_000), print('bye'), sys.exit(0)))\n"
        "print('up'); time.sleep(60)"
    )
    assert thing.line() == "up"
    thing.process.terminate()
    printed, _ = thing.process.communicate(timeout=DEADLINE)
    assert printed.splitlines()[-1] == "bye"


def test_a_fork_has_nothing_of_the_supervisors_but_its_memory(forked, tmp_path):
    """No file, no handler of a signal, no session, no environment; it is called as its line of the Procfile is."""
    assert "python" in FORKED
    thing = forked("tell", "me")
    told = json.loads(thing.line())
    assert told == {
        "argv": ["tell", "me"],
        "name": "thing",
        "given": "to the program",
        "session": thing.pid(),
        "files": [0, 1, 2],
        "handlers": [],
        "blocked": [],
        "imported": True,
    }


def test_a_fork_outlives_a_killed_supervisor_without_holding_its_lock(forked, tmp_path):
    """The next run takes the data folder, and ends what is left."""
    thing = forked("tell")
    assert thing.line()
    left = psutil.Process(thing.pid())
    with pytest.raises(StartError), only_run(tmp_path):
        pytest.fail("the supervisor holds it")
    thing.process.kill()
    thing.process.wait(DEADLINE)
    with only_run(tmp_path):
        assert left.is_running()
    left.kill()
    left.wait(DEADLINE)


def test_a_killed_fork_is_started_again(forked):
    thing = forked("tell")
    first = json.loads(thing.line())["session"]
    os.kill(first, signal.SIGKILL)
    assert "ended with -9" in thing.line()
    assert json.loads(thing.line())["session"] == thing.pid() != first


@pytest.mark.parametrize(
    ("how", "said", "code"),
    [
        (["end"], "", 0),
        (["end", "3"], "", 3),
        (["end", "no reason"], "no reason", 1),
        (["raise"], "ZeroDivisionError: division by zero", 1),
        (["thread"], "the thread's end", 0),
    ],
)
def test_a_fork_ends_as_a_program_of_its_own_does(forked, how: list[str], said: str, code: int):
    """With its exit code, its last words, and when its threads have ended."""
    thing = forked(*how)
    words: list[str] = []
    while "ended with" not in (line := thing.line()):
        assert line or words
        words.append(line)
    assert (words[-1] if words else "") == said
    assert f"ended with {code};" in line


def test_what_ends_by_a_signal_while_it_starts_is_started_again(forked):
    """A fork has its own handlers from the first moment: none of the supervisor's."""
    thing = forked("tell")
    for _ in range(3):
        os.kill(thing.pid(), signal.SIGTERM)
        while "ended with -15" not in thing.line():
            assert thing.process.poll() is None
