"""scripts/respawn keeps one process of the Procfile alive, and lets it go when told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[3]
DEADLINE = 60.0
SILENCE = 4
"""s that a command may be silent: also on a busy machine it has started by then."""


class Respawned:
    """A command under scripts/respawn; the pid it has by the pid file."""

    def __init__(self, folder: Path, code: str, *options: str) -> None:
        self.file = folder / "pids" / "thing.pid"
        beat = {"HEARTBEAT_FILE": str(folder / "pids" / "thing.heartbeat")}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "respawn"), *options, sys.executable, "-u", "-c", code],
            env=os.environ | {"DATA_DIR": str(folder), "PROCESS_NAME": "thing"} | beat,
            stdout=subprocess.PIPE,
            text=True,
        )

    def pid(self) -> int:
        wait_for(lambda: self.file.exists() and self.file.read_text().endswith("\n"), "a pid file", interval=0.02)
        return int(self.file.read_text())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def respawned(tmp_path: Path) -> Iterator[Callable[..., Respawned]]:
    made: list[Respawned] = []

    def make(code: str, *options: str) -> Respawned:
        made.append(Respawned(tmp_path, code, *options))
        return made[-1]

    yield make
    for one in made:
        one.process.terminate()
        one.process.communicate(timeout=DEADLINE)


def test_a_killed_command_is_started_again(respawned):
    """SIGKILL of the command, not of respawn, brings a new one with a new process id."""
    thing = respawned("import time; print('up'); time.sleep(60)")
    assert thing.line() == "up"
    first = thing.pid()
    os.kill(first, signal.SIGKILL)
    assert "ended with -9" in thing.line()
    assert thing.line() == "up"
    assert thing.pid() != first


def test_what_a_dead_command_leaves_in_its_group_is_killed_before_the_next_start(respawned):
    """A child that outlives its killed parent would hold the parent's port, or its task."""
    thing = respawned(
        "import subprocess, time; child = subprocess.Popen(['sleep', '60']); print(child.pid); time.sleep(60)"
    )
    child = psutil.Process(int(thing.line()))
    os.kill(thing.pid(), signal.SIGKILL)
    assert "ended with -9" in thing.line()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child ended", interval=0.02)


def test_sigterm_reaches_the_command_and_ends_the_respawning(respawned):
    """An orderly stop: the command ends in its own way, nothing is started again, the exit code is 0."""
    thing = respawned(
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


def test_a_command_that_ignores_sigterm_is_killed(respawned):
    """Nothing outlives the grace period."""
    thing = respawned("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(60)")
    assert thing.line() == "up"
    command = psutil.Process(thing.pid())
    thing.process.terminate()
    assert thing.process.wait(DEADLINE) == 0
    assert not command.is_running()


def test_a_stop_is_heeded_between_two_starts(respawned):
    """SIGTERM while respawn waits to start the command again ends it at once. No process has its id meanwhile."""
    thing = respawned("raise SystemExit(5)")
    for _ in range(4):
        assert "ended with 5" in thing.line()
    thing.process.terminate()
    assert thing.process.wait(DEADLINE) == 0
    assert not thing.file.exists()


def test_a_command_that_does_not_exist_is_an_error_not_a_loop(tmp_path):
    """A misspelt Procfile must not look like a process that dies."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "respawn"), "no-such-command"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 127
    assert "no-such-command" in done.stderr


BEATING = (
    "import os, pathlib, time\nprint('up')\n"
    "while True: pathlib.Path(os.environ['HEARTBEAT_FILE']).touch(); time.sleep(0.1)"
)


def test_a_command_that_hangs_is_killed_and_started_again(respawned):
    """It lives and does nothing: its heartbeat stands still."""
    thing = respawned(BEATING, "--heartbeat", str(SILENCE))
    assert thing.line() == "up"
    first = thing.pid()
    os.kill(first, signal.SIGSTOP)
    assert "no heartbeat" in thing.line()
    assert "ended with -9" in thing.line()
    assert thing.line() == "up"
    assert thing.pid() != first


def test_a_command_that_beats_is_left_alone(respawned, tmp_path):
    """For longer than it may be silent; then it is told to end in order, as any other."""
    thing = respawned(BEATING, "--heartbeat", str(SILENCE))
    assert thing.line() == "up"
    first, beat, began = thing.pid(), tmp_path / "pids" / "thing.heartbeat", time.time()
    wait_for(lambda: beat.exists() and beat.stat().st_mtime > began + 1.5 * SILENCE, "heartbeats")
    assert thing.pid() == first
    thing.process.terminate()
    assert thing.process.wait(DEADLINE) == 0
    assert thing.line() == ""


def test_a_command_that_never_beats_is_killed_too(respawned, tmp_path):
    """Whatever the one before it left."""
    (tmp_path / "pids").mkdir()
    (tmp_path / "pids" / "thing.heartbeat").touch()
    thing = respawned("import time; print('up'); time.sleep(60)", "--heartbeat", str(SILENCE))
    assert thing.line() == "up"
    assert "no heartbeat" in thing.line()


@pytest.mark.parametrize("arguments", [["--heartbeat"], ["--heartbeat", "soon", "true"], ["--heartbeat", "1"], []])
def test_a_wrong_call_says_how_it_is_called(arguments):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "respawn"), *arguments],
        env=os.environ | {"HEARTBEAT_FILE": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")
