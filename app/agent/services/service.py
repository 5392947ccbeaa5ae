"""One service: its runs, one after another, until it ends for good.

.services/<name>/log-…     its output (`app.agent.services.log`)
.services/<name>/run.json  its last run
.services/<name>/end.json  how that ended; without this file its end is not known
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Any

from app.agent.disk import read_document, write_document
from app.agent.execs.order import BadOrder
from app.agent.execs.run import ENDED, End, Run
from app.agent.protocol import COMING, ExecReason, Restart, ServiceState
from app.agent.services.definition import Definition
from app.agent.services.log import Log
from app.agent.sockets import Descriptor, find_listener
from app.agent.text import moment

RUN, END = "run.json", "end.json"

BEGUN: Mapping[str, type | UnionType] = {"started_at": int | float}
"""What is kept of a run."""

TRIES = 10
"""Runs in a row that end soon; after the last the service is given up."""

SOON = 60.0
"""Seconds; a run that lasts longer did not end soon."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a service is started again; twice as long after each further run that ended soon."""

SETTLE = 1.0
"""Seconds after which a service without a port counts as running: most that can't run fail sooner."""

LOOK = 0.1
"""Seconds between two looks whether it runs: nothing tells that a port listens."""

THERE = (ServiceState.STARTING, ServiceState.RUNNING)
"""What it does while a run is under way."""

WITH_WORKSPACE = (ExecReason.SLEEP, ExecReason.STOPPED)
"""Why a service ended that nobody ended."""


class Service:
    """A service, kept in `folder`. Thread-safe. `begin` starts a run whose processes have a mark; it raises `BadOrder`
    and OSError."""

    def __init__(
        self, definition: Definition, folder: Path, mark: str, begin: Callable[[Definition, str], Run]
    ) -> None:
        self.definition = definition
        self._folder = folder
        self._mark = mark
        self._begin = begin
        self._changed = threading.Condition()
        self._log = Log(folder)
        self._line_ended = True
        self._active = False
        self._stop: ExecReason | None = None
        self._run: Run | None = None
        self._listener: Descriptor | None = None
        self._begun = 0.0
        self._pausing = False
        self._starts = 0
        begun = read_document(folder / RUN, BEGUN)
        self._started_at: float | None = None if begun is None else begun["started_at"]
        self._end = None if begun is None else _end_in(folder, begun["started_at"])

    @property
    def lost(self) -> bool:
        """Whether its last run was under way when an earlier agent was killed."""
        return self._end is not None and self._end.reason is ExecReason.LOST

    @property
    def ended_with_workspace(self) -> bool:
        """Whether its last run was ended because the workspace stopped, and none has begun since."""
        with self._changed:
            return not self._active and self._end is not None and self._end.reason in WITH_WORKSPACE

    @property
    def state(self) -> ServiceState:
        with self._changed:
            run, end, port = self._run, self._end, self.definition.port
            if not self._active:
                well = end is None or end.exit_code == 0 or end.reason in (*WITH_WORKSPACE, ExecReason.KILLED)
                return ServiceState.STOPPED if well else ServiceState.FAILED
            if run is None:
                return ServiceState.WAITING if self._pausing else ServiceState.STARTING
            if port is None:
                there = time.monotonic() - self._begun >= SETTLE
            else:
                if self._listener is None or not self._listener.there:
                    self._listener = find_listener(port, run.pid)
                there = self._listener is not None
            return ServiceState.RUNNING if there else ServiceState.STARTING

    def told(self) -> dict[str, Any]:
        """All that is known of it, as the manager is told."""
        with self._changed:
            state, end = self.state, self._end
            return {
                **self.definition.to_json(),
                "state": state,
                "exit_code": end and end.exit_code,
                "signal": end and end.signal,
                "reason": end and end.reason,
                "starts": self._starts,
                "started_at": self._started_at,
                "ended_at": end.at if end and state not in THERE else None,
                "log_bytes": self._log.size,
            }

    def start(self) -> None:
        """Have it run, unless it does."""
        with self._changed:
            if not self._active:
                self._stop, self._starts = None, 0
                threading.Thread(target=self._work, name="service", daemon=True).start()
                self._active = True

    def stop(self, reason: ExecReason) -> None:
        """Have it end: SIGTERM first. `join` waits for that."""
        with self._changed:
            self._stop, run = reason, self._run
            self._changed.notify_all()
        if run is not None:
            run.kill(None, reason)

    def join(self, seconds: float) -> bool:
        """Wait so long until it has ended for good; whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._active, seconds)

    def wait(self, seconds: float) -> None:
        """Wait until its state does not pass by itself, or the time is over."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while (left := deadline - time.monotonic()) > 0 and self.state in COMING:
                self._changed.wait(min(left, LOOK))

    def piece(self, offset: int, most: int, wait: float) -> tuple[str, int]:
        """The text of its log from byte `offset` on, and where the next piece begins; as soon as there is some, or it
        has ended for good, or after `wait` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._log.size > offset or not self._active, wait)
            return self._log.piece(offset, most)

    def place_in_log(self, last: int | None) -> int:
        """Where the last so many bytes of its log begin; with None, all that are kept."""
        with self._changed:
            return self._log.first if last is None else max(self._log.first, self._log.size - last)

    # The thread that runs it

    def _work(self) -> None:
        soon = 0
        try:
            while True:
                end = self._carry_out()
                soon = 0 if time.monotonic() - self._begun >= SOON else soon + 1
                with self._changed:
                    pause = self._note_end(end, soon)
                    if pause is None or self._changed.wait_for(lambda: self._stop is not None, pause):
                        # Whoever starts it from here on finds that it has ended.
                        return self._close()
        except BaseException:
            self._close()
            raise

    def _note_end(self, end: End, soon: int) -> float | None:
        """Note the end of a run; seconds until the next, None for never."""
        self._run, self._listener, self._pausing = None, None, True
        self._end = end if self._stop is None else replace(end, reason=self._stop)
        self._keep(END, vars(self._end))
        pause = self._pause(end, soon)
        self._say(_ending(self._end) + _following(pause, soon))
        self._changed.notify_all()
        return pause

    def _close(self) -> None:
        with self._changed:
            self._active, self._run = False, None
            self._log.close()
            self._changed.notify_all()

    def _carry_out(self) -> End:
        """One run, to its end."""
        with self._changed:
            self._pausing = False
            self._starts += 1
            self._started_at, self._begun = round(time.time(), 3), time.monotonic()
            with contextlib.suppress(OSError):
                (self._folder / END).unlink()
            self._keep(RUN, {"started_at": self._started_at})
            self._say(f"started: {self.definition.command}")
            mark = f"{self._mark}.{self._starts}"
        try:
            run = self._begin(self.definition, mark)
        except (BadOrder, OSError) as e:
            with self._changed:
                self._say(f"can't be started: {e}")
            return End(reason=ExecReason.NOT_BEGUN, at=round(time.time(), 3))
        with self._changed:
            self._run, stop = run, self._stop
            self._changed.notify_all()
        if stop is not None:
            run.kill(None, stop)
        return run.follow(self._add, math.inf, mark)

    def _pause(self, end: End, soon: int) -> float | None:
        """Seconds until it is started again, None for never."""
        restart = self.definition.restart
        done = restart is Restart.NEVER or (restart is Restart.ON_FAILURE and end.exit_code == 0)
        if self._stop is not None or done or soon >= TRIES:
            return None
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** max(0, soon - 1))

    def _keep(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep a document. Without it the run counts as lost, or as none."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_document(self._folder / name, document, durable=False)

    def _say(self, text: str) -> None:
        """Add a line of the service's own to the log."""
        begin = "" if self._line_ended else "\n"
        self._add("", f"{begin}[{moment(time.time())} {text}]\n".encode("utf-8", "replace"))

    def _add(self, _: str, data: bytes) -> None:
        with self._changed:
            self._log.add(data)
            self._line_ended = data.endswith(b"\n")
            self._changed.notify_all()


def _end_in(folder: Path, started_at: float) -> End:
    """How the last run ended."""
    try:
        return End.from_json(read_document(folder / END, ENDED) or {})
    except (KeyError, ValueError):
        return End(reason=ExecReason.LOST, at=started_at)


def _ending(end: End) -> str:
    """How a run ended, in words."""
    if end.reason is not None:
        return f"ended: {end.reason}"
    left = f"; {end.left} processes that it left running were ended" if end.left else ""
    return (f"killed by {end.signal}" if end.signal else f"exited with {end.exit_code}") + left


def _following(pause: float | None, soon: int) -> str:
    """What follows the end of a run, in words."""
    if pause is not None:
        return f"; started again in {pause:g} s"
    return f"; given up after {soon} runs that ended soon" if soon >= TRIES else ""
