"""One command that a caller asked for: from its begin to its end, and what is known of it later.

    .execs/<id>/order.json   what was asked, without variables and input, which may hold secrets
    .execs/<id>/stdout       its output, and `stderr`
    .execs/<id>/end.json     how it ended; without this file its end is not known

The files outlive the agent's process, not the machine's crash: nothing is flushed. A command whose order such a crash
took may run twice if its caller repeats it, on files of before it.
"""

from __future__ import annotations

import contextlib
import stat
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any

from app.agent.disk import read_document, write_document
from app.agent.execs.order import BadOrder, Order, tty_of
from app.agent.execs.output import Output, Stream
from app.agent.execs.run import ENDED as RUN_ENDED
from app.agent.execs.run import End, Run
from app.agent.execs.runners import Runner
from app.agent.execs.terminal import Ended, Terminal
from app.agent.protocol import ExecReason
from app.agent.tools.command import in_terminal

ORDER, END = "order.json", "end.json"
STREAMS = ("stdout", "stderr")

ASKED: Mapping[str, type | UnionType] = {
    **dict.fromkeys(("id", "cwd", "digest"), str),
    "command": str | list,
    "detached": bool,
    "tty": dict | None,
    "started_at": int | float,
}
"""What is kept of an order, and its types."""

ENDED: Mapping[str, type | UnionType] = {**RUN_ENDED, "streams": dict}
"""What is kept of an end."""


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
        self._run: Run | None = None
        self._terminal: Terminal | None = None
        self.active_at = time.time()
        """When it last wrote something, or began."""

    @classmethod
    def begin(cls, order: Order, folder: Path, runner: Runner, told: Mapping[str, Any]) -> Exec:
        """Note the order and have `runner` carry it out. OSError if it can't be written; then nothing runs."""
        asked: dict[str, Any] = {"id": order.id, "command": order.command, "cwd": order.cwd, "detached": order.detached}
        asked["tty"] = None if order.window is None else vars(order.window)
        asked |= {"digest": order.digest, "started_at": round(time.time(), 3)}
        folder.mkdir(parents=True, exist_ok=True)
        begun = cls(asked, {name: Stream(folder / name) for name in STREAMS}, None, folder)
        with contextlib.ExitStack() as undone:
            if order.window is not None:
                begun._terminal = Terminal(order.window)
                undone.callback(begun._terminal.close)
                told = in_terminal(told, begun._terminal.path)
            write_document(folder / ORDER, asked, durable=False)
            undone.pop_all()
        runner.run(told, order.stdin.encode())
        begun._run = Run(runner, begun._terminal)
        return begun

    @classmethod
    def load(cls, folder: Path) -> Exec | None:
        """A command of an earlier process; None if the folder has none. What did not end there is lost."""
        asked = read_document(folder / ORDER, ASKED)
        if asked is None:
            return None
        try:
            tty_of(asked["tty"])
        except BadOrder:
            return None
        try:
            ended = read_document(folder / END, ENDED) or {}
            streams = {name: Stream.from_json(folder / name, ended["streams"][name]) for name in STREAMS}
            end = End.from_json(ended)
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

    @property
    def tty(self) -> Mapping[str, int] | None:
        """The size of its terminal, None if it has none."""
        terminal = self._terminal
        return self.asked["tty"] if terminal is None else vars(terminal.window)

    @property
    def input_bytes(self) -> int:
        """What was typed into its terminal so far."""
        return 0 if self._terminal is None else self._terminal.taken

    def terminal(self) -> Terminal:
        """Its terminal. Raises `Ended` if it has none, or none any more."""
        if self._terminal is None:
            raise Ended
        return self._terminal

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
            run = self._run
        if run is not None:
            run.kill(number)

    def stop(self, reason: ExecReason) -> None:
        """End it with all it started: the workspace stops."""
        with self._changed:
            run = self._run
        if run is not None:
            run.end(reason)

    # The thread that follows it

    def follow(self, seconds: float, most: int, mark: str) -> None:
        """Keep its output, `most` bytes of each stream in a file, until it ends, within `seconds` and the grace of its
        runner. `mark` is that of its processes."""
        assert self._run is not None
        outputs = {name: Output(self.folder / name, most) for name in STREAMS}
        end = End(reason=ExecReason.LOST, at=self.asked["started_at"])
        try:
            end = self._run.follow(partial(self._add, outputs), seconds, mark)
            with contextlib.suppress(OSError):  # Later it counts as lost.
                streams = {name: output.so_far.to_json() for name, output in outputs.items()}
                write_document(self.folder / END, {**vars(end), "streams": streams}, durable=False)
        finally:
            for output in outputs.values():
                output.close()
            if self._terminal is not None:
                self._terminal.close()
            with self._changed:
                self.end, self._run = end, None
                self._changed.notify_all()

    def _add(self, outputs: Mapping[str, Output], name: str, data: bytes) -> None:
        outputs[name].add(data)
        with self._changed:
            self._streams[name] = outputs[name].so_far
            self.active_at = time.time()
            self._changed.notify_all()


def _of_file(path: Path) -> Stream:
    """What there is of a stream whose end is not known."""
    size = 0
    with contextlib.suppress(OSError):
        status = path.stat(follow_symlinks=False)
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return Stream(path, size, size)
