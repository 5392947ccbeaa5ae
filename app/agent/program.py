"""A program that is given lines and answers by lines, and is ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

from app.agent.tools.child import TICK, Stop
from app.agent.tools.orphans import MARK, kill_orphans

LINE_BYTES = 1024 * 1024
"""Of a line that it answers, at most."""

READ_BYTES = 65_536

GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL; the agent itself has more to end in."""


class LineTooLong(Exception):
    """The program wrote a longer line than `LINE_BYTES`."""


class Program:
    """A running program. `mark` is in the environment of all that it starts, by which that is found. OSError if it
    can't be started."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], mark: str) -> None:
        self._mark = mark
        self._process = subprocess.Popen(
            list(command),
            # Not among the user's files, which some programs would take for their own.
            cwd="/",
            env={**environment, MARK: mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._input, self._output):
            os.set_blocking(pipe, False)
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._closed = False
        self._stopping = threading.Lock()

    @property
    def running(self) -> bool:
        """Whether it runs. One that has ended keeps its number until `stop`, so that nothing else is signalled."""
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def send(self, line: bytes, stop: Stop) -> None:
        """Give it a line, as far as it takes it before it ends or `stop`."""
        left = memoryview(line + b"\n")
        with contextlib.suppress(BrokenPipeError):
            while left and not stop():
                if select.select([], [self._input], [], TICK)[1]:
                    left = left[os.write(self._input, left) :]
                elif not self.running:
                    return

    def line(self, stop: Stop) -> bytes | None:
        """Its next line; None once it has ended or closed its output, or on `stop`. Raises LineTooLong."""
        while not self._lines and not self._closed and not stop():
            if select.select([self._output], [], [], TICK)[0]:
                self._read()
        return self._lines.popleft() if self._lines and not stop() else None

    def _read(self) -> None:
        data = os.read(self._output, READ_BYTES)
        self._closed = not data
        *lines, rest = (self._rest + data).split(b"\n")
        if self._closed and rest:
            lines, rest = [*lines, rest], b""
        self._rest = rest
        self._lines.extend(lines)
        if any(len(line) > LINE_BYTES for line in (*lines, rest)):
            raise LineTooLong(f"a line has more than {LINE_BYTES} bytes")

    def stop(self) -> int:
        """End it with all that it started: SIGTERM, and SIGKILL after `GRACE`. The exit status. Another thread may wait
        for a line meanwhile."""
        with self._stopping:
            if self._process.returncode is None:
                self._signal(signal.SIGTERM)
                deadline = time.monotonic() + GRACE
                while self.running and time.monotonic() < deadline:
                    time.sleep(TICK)
                self._signal(signal.SIGKILL)
                self._process.wait()
                kill_orphans(self._mark)
            return self._process.returncode

    def end(self) -> int:
        """`stop` it, and free what it held."""
        status = self.stop()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return status

    def _signal(self, number: int) -> None:
        """To it and the processes of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
