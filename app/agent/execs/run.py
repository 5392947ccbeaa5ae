"""One run of a command: its output as it comes, and its end."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Self

from app.agent.execs.runners import Runner
from app.agent.execs.terminal import Terminal
from app.agent.protocol import ExecReason
from app.agent.tools.command import GRACE, read_answer
from app.agent.tools.orphans import kill_orphans

READ_BYTES = 262_144
DRAIN_READS = 64
"""More than a pipe or a terminal holds: a terminal gives 4 KiB in each."""

TICK = 1.0
"""Seconds between two looks at the clock; output and the end are noticed at once."""

KILL_AFTER = 5.0
"""Seconds from SIGTERM until a command that is to end is killed."""

ENDED: Mapping[str, type | UnionType] = {
    "exit_code": int | None,
    **dict.fromkeys(("signal", "reason"), str | None),
    "left": int,
    "at": int | float,
}
"""What is kept of an end."""


@dataclass(frozen=True)
class End:
    """How a command ended: its exit code, or the signal that ended it, or neither where the reason says why. `left`
    are the processes that it left running when it ended, which were ended too."""

    exit_code: int | None = None
    signal: str | None = None
    reason: ExecReason | None = None
    left: int = 0
    at: float = 0.0

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """One whose fields were kept, of the types of `ENDED`. Raises ValueError for a reason that there is not."""
        reason = None if told["reason"] is None else ExecReason(told["reason"])
        return cls(told["exit_code"], told["signal"], reason, told["left"], told["at"])


class Run:
    """A command that a runner carries out, with a `terminal` or without. Thread-safe; `follow` needs a thread of its
    own. `runner` has its order, and is freed by `follow`."""

    def __init__(self, runner: Runner, terminal: Terminal | None = None) -> None:
        self.pid = runner.pid
        """Of the process above all that the command starts."""
        self._runner = runner
        self._names = {runner.stdout: "stdout", runner.stderr: "stderr"} | ({terminal.fd: "stdout"} if terminal else {})
        # An interactive shell ignores SIGTERM.
        self._last_word = signal.SIGHUP if terminal else signal.SIGTERM
        self._lock = threading.Lock()
        self._reason: ExecReason | None = None
        self._kill_at = math.inf

    def kill(self, number: int | None, reason: ExecReason = ExecReason.KILLED) -> None:
        """Send its process group a signal, SIGKILL to all it started; with None, have it end: SIGTERM
        first, in a terminal SIGHUP."""
        if number == signal.SIGKILL:
            self.end(reason)
        elif number is None:
            with self._lock:
                self._reason = self._reason or reason
                self._kill_at = min(self._kill_at, time.monotonic() + KILL_AFTER)
            self._runner.signal(self._last_word)
        else:
            self._runner.signal(number)

    def end(self, reason: ExecReason) -> None:
        """End it with all it started, at once."""
        with self._lock:
            self._reason = self._reason or reason
        self._runner.end()

    def follow(self, add: Callable[[str, bytes], None], seconds: float, mark: str) -> End:
        """Call `add` with each piece of `stdout` and `stderr` until the command ends, within `seconds` and the grace of
        its runner. `mark` is that of its processes."""
        answer = self._read(add, seconds)
        told = read_answer(answer) if self._runner.close() == 0 else None
        if told is None:
            kill_orphans(mark)
        return _end_of(told, self._reason)

    def _read(self, add: Callable[[str, bytes], None], seconds: float) -> bytes:
        """The runner's answer; the output goes where it belongs."""
        runner = self._runner
        names = self._names
        poll, answer = select.poll(), bytearray()
        for fd in (*names, runner.answer):
            poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + seconds + GRACE
        while (now := time.monotonic()) < deadline:
            for fd, _ in poll.poll(1000 * min(TICK, max(0.0, self._kill_at - now))):
                data = _some(fd)
                if fd == runner.answer:
                    answer += data
                    if not data:
                        _drain(names, add)
                        return bytes(answer)
                elif data:
                    add(names[fd], data)
                else:
                    poll.unregister(fd)
            if time.monotonic() >= self._kill_at:
                with self._lock:
                    self._kill_at = math.inf
                runner.end()
        return b""


def _some(fd: int) -> bytes:
    """Some bytes; none at the end, which a terminal that a program hung up tells by an error."""
    try:
        return os.read(fd, READ_BYTES)
    except OSError as e:
        if e.errno != errno.EIO:
            raise
        return b""


def _drain(names: Mapping[int, str], add: Callable[[str, bytes], None]) -> None:
    """Read the rest of the pipes; their writers have ended, or are stuck."""
    for fd, name in names.items():
        os.set_blocking(fd, False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(DRAIN_READS):
                if not (data := _some(fd)):
                    break
                add(name, data)


def _end_of(told: Mapping[str, Any] | None, reason: ExecReason | None) -> End:
    """The end that a runner tells, None if it told none; `reason` is why it was ended, if it was."""
    now = round(time.time(), 3)
    if told is None:
        return End(reason=reason or ExecReason.LOST, at=now)
    match told["ended"]:
        case "late":
            return End(reason=ExecReason.TIMEOUT, at=now)
        case "processes":
            return End(reason=ExecReason.PROCESSES, at=now)
        case "stopped":
            return End(reason=reason or ExecReason.STOPPED, at=now)
    if not told["begun"]:
        return End(reason=reason or ExecReason.NOT_BEGUN, at=now)
    code, left = told["code"], told["left"]
    if code >= 0:
        return End(exit_code=code, left=left, at=now)
    return End(signal=_name(-code), reason=reason, left=left, at=now)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
