"""Keeps programs running: starts each again when it ended or hangs, and gathers what they print.

All of it is done in `watch`, by one thread: a fork of a process with several may wait for ever for a lock that another
thread held. Each program has its own session. When it ends, the rest of its process group is killed before the restart,
so that no old worker holds the port or a task. While it runs, its process id is in `pids/NAME.pid` of the data folder.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scripts.lib import launch
from scripts.lib.data_dir import StartError

GRACE = 4.0
"""s for programs to end before they are killed."""

KILL_LIMIT = 1.0
"""s that a killed program may take to end."""

FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
"""s before a restart; doubled each time, reset after a run of STEADY seconds."""

STEADY = 10.0

CHECK_INTERVAL = 1.0
"""s between checks of the heartbeat."""

PIPE_BYTES = 1_048_576
"""What programs may print before they wait for this process to read it; Linux' usual limit."""

LONGEST_LINE = 65_536
"""Bytes after which a line is logged though it has no end."""


class Log(Protocol):
    """Takes what is printed, line by line."""

    def write(self, name: str, line: str) -> None:
        """Log a line of the program of this name."""


@dataclass(frozen=True)
class Program:
    """What is to be kept running. With `heartbeat_limit` (s) it is killed if it has not touched the file HEARTBEAT_FILE
    of its environment for that long (workers/heartbeat_file.py); the time until its first touch counts as well."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    heartbeat_limit: float | None = None


class Heart:
    """The heartbeat file of a program, and the seconds after which it is too old."""

    def __init__(self, file: Path, limit: float) -> None:
        self._file = file
        self._limit = limit
        self._seen = self._touched()
        self._still = 0.0

    def stands_still(self) -> bool:
        """Whether the heartbeat is too old. Call it every CHECK_INTERVAL seconds: it counts calls instead of reading a
        clock, so that neither a clock that jumps nor a suspended machine kills the program."""
        touched = self._touched()
        self._still = self._still + CHECK_INTERVAL if touched == self._seen else 0.0
        self._seen = touched
        return self._still > self._limit

    def _touched(self) -> int:
        try:
            return self._file.stat().st_mtime_ns
        except OSError:
            return 0


class Output:
    """What a program prints, as lines. The pipe outlives the program: each of its processes writes into it."""

    def __init__(self, name: str, log: Log) -> None:
        self._name, self._log = name, log
        self._begun = b""
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        with suppress(OSError):
            fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def read(self) -> None:
        """Log the lines that are there."""
        with suppress(BlockingIOError):
            *lines, self._begun = (self._begun + os.read(self.reading, PIPE_BYTES)).split(b"\n")
            if len(self._begun) > LONGEST_LINE:
                lines, self._begun = [*lines, self._begun], b""
            for line in lines:
                self.say(line.decode(errors="replace"))

    def say(self, line: str) -> None:
        """Log a line about the program."""
        self._log.write(self._name, line)

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


class Kept:
    """A program, and its process while there is one."""

    def __init__(self, program: Program, folder: Path, output: Output) -> None:
        self.program = program
        self.output = output
        self.pid: int | None = None
        self.due = 0.0
        """When to start it, by the monotonic clock."""
        self._file = folder / "pids" / f"{program.name}.pid"
        self._started = 0.0
        self._delay = FIRST_DELAY
        self._heart: Heart | None = None
        self._checked = 0.0

    def start(self, now: float) -> None:
        """Start it. Raises `OSError` if it can't be started."""
        program = self.program
        if program.heartbeat_limit is not None:
            # The old file stays: a full disk may have no room for a new one.
            self._heart = Heart(Path(program.environment["HEARTBEAT_FILE"]), program.heartbeat_limit)
        self.pid = launch.start(program.name, program.command, program.environment, self.output.writing)
        self._started = self._checked = now
        try:
            self._file.write_text(f"{self.pid}\n")
        except OSError as error:
            self.output.say(f"its process id is not in {self._file.name}: {error.strerror}")

    def look(self, now: float) -> None:
        """Start it if that is due, note its end, and kill it if it hangs."""
        if self.pid is None:
            if now >= self.due:
                self._start_again(now)
        elif self.ended():
            if now - self._started > STEADY:
                self._delay = FIRST_DELAY
            self._wait(now, f"ended with {self.reap()}")
        elif self._heart is not None and now >= self._checked + CHECK_INTERVAL:
            self._checked = now
            if self._heart.stands_still():
                self.output.say("no heartbeat for too long; the process hangs and is killed")
                os.kill(self.pid, signal.SIGKILL)
                self._heart = None

    def _start_again(self, now: float) -> None:
        try:
            self.start(now)
        except OSError as error:
            self._wait(now, f"can't be started: {error.strerror}")

    def _wait(self, now: float, why: str) -> None:
        """Put the next start off, longer each time."""
        self.output.say(f"{self.program.command[0]} {why}; starting it again in {self._delay:.1f} s")
        self.due = now + self._delay
        self._delay = min(LONGEST_DELAY, self._delay * 2)

    def ended(self) -> bool:
        """Whether its process has ended. It stays a zombie until `reap`, so its id is not reused yet."""
        return self.pid is not None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self) -> None:
        """Kill all of its process group, which an ended process may have left."""
        assert self.pid is not None
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Forget the process that ended; nothing of its group is left. Returns its exit code, or minus the signal that
        ended it."""
        assert self.pid is not None
        self.kill()
        # Before its id may be another process's.
        self._file.unlink(missing_ok=True)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = None
        self.output.read()
        return code


class Supervisor:
    """Keeps the programs running from `start` on, while `watch` is called; `stop` ends them in any case. For the main
    thread, one at a time."""

    def __init__(self, programs: Sequence[Program], folder: Path, log: Log) -> None:
        self._folder = folder
        self._kept = [Kept(each, folder, Output(each.name, log)) for each in programs]
        self._selector = selectors.DefaultSelector()
        self._signals, self._wakeup = socket.socketpair()

    def start(self) -> None:
        """Start all programs. Raises `StartError` if one can't be started."""
        (self._folder / "pids").mkdir(parents=True, exist_ok=True)
        for kept in self._kept:
            self._selector.register(kept.output.reading, selectors.EVENT_READ, kept.output)
        self._notice_signals()
        # Forks come last: this process imports what they need while the others start.
        for kept in sorted(self._kept, key=lambda each: each.program.command[0] in launch.FORKED):
            try:
                kept.start(time.monotonic())
            except OSError as error:
                program = kept.program
                raise StartError(f"{program.command[0]} ({program.name}) can't be started: {error.strerror}") from error

    def _notice_signals(self) -> None:
        """Have each signal wake the selector, also the end of a child, which needs a handler for that."""
        for each in (self._signals, self._wakeup):
            each.setblocking(False)
        self._selector.register(self._signals, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)

    def watch(self, seconds: float) -> None:
        """Keep the programs running for so long, or until a signal comes."""
        until = time.monotonic() + seconds
        signalled = False
        while not signalled and (now := time.monotonic()) < until:
            for kept in self._kept:
                kept.look(now)
            signalled = self._read(min(until - now, CHECK_INTERVAL, *self._delays(now)))

    def stop(self) -> None:
        """End all programs: each in its own way within GRACE, then by SIGKILL."""
        running = [kept for kept in self._kept if kept.pid is not None]
        for kept in running:
            assert kept.pid is not None
            os.kill(kept.pid, signal.SIGTERM)
        self._await_ends(running, GRACE)
        for kept in running:
            kept.kill()
        self._await_ends(running, KILL_LIMIT)
        for kept in filter(Kept.ended, running):
            kept.reap()
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._signals.close()
        self._wakeup.close()
        for kept in self._kept:
            kept.output.close()

    def _await_ends(self, running: Sequence[Kept], seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not all(kept.ended() for kept in running):
            self._read(left)

    def _delays(self, now: float) -> list[float]:
        """Seconds until each restart that waits."""
        return [max(0.0, kept.due - now) for kept in self._kept if kept.pid is None]

    def _read(self, seconds: float) -> bool:
        """Log what the programs print until something happens, for so long at most. Returns whether a signal came."""
        signalled = False
        for key, _ in self._selector.select(seconds):
            if isinstance(key.data, Output):
                key.data.read()
            else:
                signalled = bool(self._signals.recv(4096))
        return signalled
