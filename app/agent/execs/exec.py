"""One command that a caller asked for: from its begin to its end, and what is known of it later.

    .execs/<id>/order.json   what was asked, without variables and input, which may hold secrets
    .execs/<id>/stdout       its output, and `stderr`
    .execs/<id>/end.json     how it ended; without this file its end is not known

The files outlive the agent's process, not the machine's crash: nothing is flushed. A command whose order such a crash
took may run twice if its caller repeats it, on files of before it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import stat
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

from app.agent.disk import write_document
from app.agent.execs.order import Order
from app.agent.execs.output import Output, Stream, read_file
from app.agent.execs.runners import Runner
from app.agent.protocol import ExecReason
from app.agent.tools.command import GRACE, read_answer
from app.agent.tools.orphans import kill_orphans

ORDER, END = "order.json", "end.json"
STREAMS = ("stdout", "stderr")

ASKED: Mapping[str, type | UnionType] = {
    **dict.fromkeys(("id", "cwd", "digest"), str),
    "command": str | list,
    "detached": bool,
    "started_at": int | float,
}
"""What is kept of an order, and its types."""

ENDED: Mapping[str, type | UnionType] = {
    "exit_code": int | None,
    **dict.fromkeys(("signal", "reason"), str | None),
    "left": int,
    "at": int | float,
    "streams": dict,
}
"""What is kept of an end."""

DOCUMENT_BYTES = 1_048_576
"""Of such a file at most; a longer one is not ours."""

READ_BYTES = 262_144
DRAIN_READS = 16
"""More than a pipe holds."""

TICK = 1.0
"""Seconds between two looks at the clock; output and the end are noticed at once."""

KILL_AFTER = 5.0
"""Seconds from SIGTERM until a command that is to end is killed."""


@dataclass(frozen=True)
class End:
    """How a command ended: its exit code, or the signal that ended it, or neither where the reason says why. `left`
    are the processes that it left running when it ended, which were ended too."""

    exit_code: int | None = None
    signal: str | None = None
    reason: ExecReason | None = None
    left: int = 0
    at: float = 0.0


class Exec:
    """A command. Thread-safe; `follow` needs a thread of its own."""

    def __init__(
        self,
        asked: Mapping[str, Any],
        streams: Mapping[str, Stream],
        end: End | None,
        folder: Path,
    ) -> None:
        self.asked = asked
        """As `ASKED`."""
        self.folder = folder
        self.end = end
        self._streams = dict(streams)
        self._changed = threading.Condition()
        self._runner: Runner | None = None
        self._reason: ExecReason | None = None
        self._kill_at = math.inf
        self.active_at = time.time()
        """When it last wrote something, or began."""

    @classmethod
    def begin(cls, order: Order, folder: Path, runner: Runner, told: Mapping[str, Any]) -> Exec:
        """Note the order and have `runner` carry it out. OSError if it can't be written; then nothing runs."""
        asked: dict[str, Any] = {"id": order.id, "command": order.command, "cwd": order.cwd, "detached": order.detached}
        asked |= {"digest": order.digest, "started_at": round(time.time(), 3)}
        folder.mkdir(parents=True, exist_ok=True)
        begun = cls(asked, {name: Stream(folder / name) for name in STREAMS}, None, folder)
        write_document(folder / ORDER, asked, durable=False)
        begun._runner = runner
        runner.run(told, order.stdin.encode())
        return begun

    @classmethod
    def load(cls, folder: Path) -> Exec | None:
        """A command of an earlier process; None if the folder has none. What did not end there is lost."""
        asked = _read(folder / ORDER, ASKED)
        if asked is None:
            return None
        try:
            ended = _read(folder / END, ENDED) or {}
            streams = {name: Stream.from_json(folder / name, ended["streams"][name]) for name in STREAMS}
            reason = None if ended["reason"] is None else ExecReason(ended["reason"])
            end = End(ended["exit_code"], ended["signal"], reason, ended["left"], ended["at"])
        except (KeyError, TypeError, ValueError):
            streams = {name: _of_file(folder / name) for name in STREAMS}
            end = End(reason=ExecReason.LOST, at=asked["started_at"])
        return cls(asked, streams, end, folder)

    @property
    def running(self) -> bool:
        return self.end is None

    @property
    def ms(self) -> int:
        """How long it took, or runs."""
        at = time.time() if self.end is None else self.end.at
        return max(0, round(1000 * (at - self.asked["started_at"])))

    def stream(self, name: str) -> Stream:
        """What it has written to `stdout` or `stderr` so far."""
        with self._changed:
            return self._streams[name]

    def wait(self, seconds: float, seen: Mapping[str, int] | None = None) -> None:
        """Wait until it has ended, or has written more than so many bytes to a stream, or the time is over."""

        def over() -> bool:
            more = seen is not None and any(self._streams[name].size > seen[name] for name in STREAMS)
            return more or self.end is not None

        with self._changed:
            self._changed.wait_for(over, seconds)

    def kill(self, number: int | None) -> None:
        """Send its process group a signal, SIGKILL to all it started; with None, have it end: SIGTERM first."""
        with self._changed:
            runner = self._runner
            if runner is None or self.end is not None:
                return
            if number == signal.SIGKILL:
                self._end(runner, ExecReason.KILLED)
            elif number is None:
                self._reason = self._reason or ExecReason.KILLED
                self._kill_at = min(self._kill_at, time.monotonic() + KILL_AFTER)
                runner.signal(signal.SIGTERM)
            else:
                runner.signal(number)

    def stop(self, reason: ExecReason) -> None:
        """End it with all it started: the workspace stops."""
        with self._changed:
            if self._runner is not None and self.end is None:
                self._end(self._runner, reason)

    def _end(self, runner: Runner, reason: ExecReason) -> None:
        self._reason = self._reason or reason
        runner.end()

    # The thread that follows it

    def follow(self, seconds: float, most: int, mark: str) -> None:
        """Keep its output, `most` bytes of each stream in a file, until it ends, within `seconds` and the grace of its
        runner. `mark` is that of its processes."""
        runner = self._runner
        assert runner is not None
        outputs = {name: Output(self.folder / name, most) for name in STREAMS}
        end = End(reason=ExecReason.LOST, at=self.asked["started_at"])
        try:
            answer = self._read_all(runner, outputs, seconds)
            told = read_answer(answer) if runner.close() == 0 else None
            if told is None:
                kill_orphans(mark)
            end = _end_of(told, self._reason)
            with contextlib.suppress(OSError):  # Later it counts as lost.
                streams = {name: output.so_far.to_json() for name, output in outputs.items()}
                write_document(self.folder / END, {**vars(end), "streams": streams}, durable=False)
        finally:
            for output in outputs.values():
                output.close()
            with self._changed:
                self.end, self._runner = end, None
                self._changed.notify_all()

    def _read_all(self, runner: Runner, outputs: Mapping[str, Output], seconds: float) -> bytes:
        """The runner's answer; the output goes where it belongs."""
        places = {runner.stdout: outputs["stdout"], runner.stderr: outputs["stderr"]}
        names = {runner.stdout: "stdout", runner.stderr: "stderr"}
        poll, answer = select.poll(), bytearray()
        for fd in (*places, runner.answer):
            poll.register(fd, select.POLLIN)
        deadline = time.monotonic() + seconds + GRACE
        while (now := time.monotonic()) < deadline:
            for fd, _ in poll.poll(1000 * min(TICK, max(0.0, self._kill_at - now))):
                data = os.read(fd, READ_BYTES)
                if fd == runner.answer:
                    answer += data
                    if not data:
                        self._drain(places, names)
                        return bytes(answer)
                elif data:
                    self._add(names[fd], places[fd], data)
                else:
                    poll.unregister(fd)
            if time.monotonic() >= self._kill_at:
                self._kill_at = math.inf
                self.kill(signal.SIGKILL)
        return b""

    def _drain(self, places: Mapping[int, Output], names: Mapping[int, str]) -> None:
        """Read the rest of the pipes; their writers have ended, or are stuck."""
        for fd, output in places.items():
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                for _ in range(DRAIN_READS):
                    if not (data := os.read(fd, READ_BYTES)):
                        break
                    self._add(names[fd], output, data)

    def _add(self, name: str, output: Output, data: bytes) -> None:
        output.add(data)
        with self._changed:
            self._streams[name] = output.so_far
            self.active_at = time.time()
            self._changed.notify_all()


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


def _read(path: Path, types: Mapping[str, type | UnionType]) -> dict[str, Any] | None:
    """The document in a file, None if it has not these types: the workspace's user may have written it."""
    try:
        document = json.loads(read_file(path, 0, DOCUMENT_BYTES))
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not all(
        name in document and isinstance(document[name], kind) for name, kind in types.items()
    ):
        return None
    return document


def _of_file(path: Path) -> Stream:
    """What there is of a stream whose end is not known."""
    size = 0
    with contextlib.suppress(OSError):
        status = path.stat(follow_symlinks=False)
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return Stream(path, size, size)
