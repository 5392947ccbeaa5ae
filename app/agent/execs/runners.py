"""Runners that wait for their order: a command begins without the start of a Python."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from app.agent.tools.command import PROGRAM

END_SECONDS = 1.0
"""For a runner that has answered, or has no command."""


class Runner:
    """A process of `app.agent.tools.runner`, and the pipes of its command's output. `answer`, `stdout` and `stderr` are
    descriptors to read from."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._stdin = os.memfd_create("stdin")
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        self._streams = (self._stdin, stdout, stderr)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=dict(environment),
                pass_fds=self._streams,
                bufsize=0,
            )
        except BaseException:
            self._close(self._stdin, self.stdout, self.stderr)
            raise
        finally:
            self._close(stdout, stderr)
        assert self._process.stdin is not None and self._process.stdout is not None
        self.pid = self._process.pid
        self._orders, self.answer = self._process.stdin, self._process.stdout.fileno()

    @property
    def waits(self) -> bool:
        """Whether it is there for an order."""
        return self._process.poll() is None

    def run(self, order: Mapping[str, Any], stdin: bytes) -> None:
        """Have it run a command with this input. A runner that has ended gives no answer."""
        with open(self._stdin, "wb", closefd=False) as file:
            file.write(stdin)
        os.lseek(self._stdin, 0, os.SEEK_SET)
        self._tell(json.dumps({**order, "streams": self._streams}))

    def signal(self, number: int) -> None:
        """Send the command's process group a signal."""
        self._tell(str(number))

    def end(self) -> None:
        """Have it end its command, with all that this started."""
        with contextlib.suppress(OSError):
            self._orders.close()

    def close(self) -> int | None:
        """End it, and free what it held; its exit status, None if it had to be killed."""
        self.end()
        status = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(END_SECONDS)
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._close(self._stdin, self.stdout, self.stderr)
        return status

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._orders.write(line.encode() + b"\n")

    @staticmethod
    def _close(*fds: int) -> None:
        for fd in fds:
            os.close(fd)


class Runners:
    """Hands out runners, of which one is started ahead. Thread-safe."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._spare: Runner | None = None
        self._closed = False

    def take(self) -> Runner:
        """A runner for one command. OSError if none can be started."""
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None and not spare.waits:
            spare.close()
            spare = None
        return spare or Runner(self._environment)

    def prepare(self) -> None:
        """Start one ahead, if there is none."""
        with self._lock, contextlib.suppress(OSError):
            if self._spare is None and not self._closed:
                self._spare = Runner(self._environment)

    def close(self) -> None:
        """End the one that was started ahead; no further one is."""
        with self._lock:
            self._closed = True
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.close()
