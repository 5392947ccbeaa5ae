"""The commands that callers have run in this workspace: those that run, and the newest that have ended."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

from app.agent.execs.exec import STREAMS, Exec
from app.agent.execs.order import Order, folder_of
from app.agent.execs.runners import Runners
from app.agent.protocol import ExecReason
from app.agent.tools.command import order_of
from app.agent.tools.orphans import MARK
from app.agent.tools.runner import shell
from app.agent.tools.sandbox_path import Workspace

FOLDER = ".execs"
"""The name of their folder, beside the workspace's and on the same volume. No backup or restore point has it."""

KEPT = 100
"""Commands that have ended and are still known."""

READY_WAIT = 5.0
"""Seconds a call waits until commands may begin: the first may come as soon as the socket is open."""

LOADED_MOST = 1_000
"""Folders that are looked into for commands of earlier processes: the workspace's user may have made any number."""

KEPT_BYTES = 268_435_456
"""Of their output; the oldest go first."""


class IdReused(Exception):
    """The id belongs to another command."""


class TooMany(Exception):
    """So many commands run already."""


class Closed(Exception):
    """The workspace is about to stop."""


class NotReady(Exception):
    """What an earlier agent left running may still be there."""


class Execs:
    """The commands of one workspace, kept in `folder`. Thread-safe. `environment` is that of its commands, `hidden` a
    folder they can't read, `longest` the seconds that one may take, `at_once` how many may run, `most` the bytes of a
    stream that a file keeps. None begins while the workspace is `closing`."""

    def __init__(
        self,
        workspace: Workspace,
        folder: Path,
        environment: Mapping[str, str],
        *,
        hidden: Path | None = None,
        longest: float,
        at_once: int,
        most: int,
        closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self.longest = longest
        self._closing = closing
        self._workspace = workspace
        self._folder = folder
        self._hidden = hidden
        self._at_once = at_once
        self._most = most
        self._mark = f"{environment.get(MARK, '')}.execs"
        self._runners = Runners({**environment, MARK: self._mark})
        self._lock = threading.RLock()
        self._known: dict[str, Exec] | None = None
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = False
        self._ready = threading.Event()
        self.stop_reason = ExecReason.STOPPED
        """Why the workspace stops, once it does."""

    def open(self) -> None:
        """Let commands begin: what an earlier agent left running has ended."""
        self._ready.set()

    def begin(self, order: Order) -> Exec:
        """Run a command; one that is known is not run again. Raises `NotReady`, `IdReused`, `TooMany`, `Closed`,
        `BadOrder` for a folder that does not exist, and OSError if the disk can't be written."""
        if not self._ready.wait(READY_WAIT):
            raise NotReady
        with self._lock:
            known = self._all()
            if (before := known.get(order.id)) is not None:
                if before.asked["digest"] != order.digest:
                    raise IdReused
                return before
            if self._stopping or self._closing():
                raise Closed
            if sum(each.running for each in known.values()) >= self._at_once:
                raise TooMany
            cwd = folder_of(self._workspace, order.cwd)
            self._forget_old()
            begun = self._begin(order, cwd)
            known[order.id] = begun
            return begun

    def _begin(self, order: Order, cwd: str) -> Exec:
        argv = order.command if isinstance(order.command, list) else [shell(), "-c", order.command]
        mark = f"{self._mark}.{order.id}"
        told = order_of(argv, cwd, seconds=order.seconds, hidden=self._hidden, mark=mark, added=order.environment or {})
        runner = self._runners.take()
        try:
            begun = Exec.begin(order, self._folder / order.id, runner, told)
        except BaseException:
            runner.close()
            raise
        work = threading.Thread(target=self._follow, args=(begun, order.seconds, mark), name="exec", daemon=True)
        self._threads[order.id] = work
        work.start()
        return begun

    def _follow(self, begun: Exec, seconds: float, mark: str) -> None:
        try:
            begun.follow(seconds, self._most, mark)
            # Until its end the command has the processors to itself.
            self._runners.prepare()
        finally:
            with self._lock:
                self._threads.pop(begun.asked["id"], None)

    def find(self, id_: str) -> Exec | None:
        """A command, None if it is not known."""
        with self._lock:
            return self._all().get(id_)

    def newest(self) -> list[Exec]:
        """All that are known, newest first."""
        with self._lock:
            return list(reversed(self._all().values()))

    def running(self) -> list[Exec]:
        """Those that run."""
        with self._lock:
            return [each for each in (self._known or {}).values() if each.running]

    def stop(self, seconds: float) -> None:
        """End all commands, and wait so long for that; no further one begins."""
        with self._lock:
            self._stopping = True
            threads = list(self._threads.values())
            for each in self.running():
                each.stop(self.stop_reason)
        deadline = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._runners.close()

    def _all(self) -> dict[str, Exec]:
        """The commands by id, oldest first; those of earlier processes are read at the first call."""
        if self._known is None:
            folders = islice(self._folder.iterdir(), LOADED_MOST) if self._folder.is_dir() else ()
            found = [each for folder in folders if (each := Exec.load(folder)) and each.asked["id"] == folder.name]
            found.sort(key=lambda each: float(each.asked["started_at"]))
            self._known = {str(each.asked["id"]): each for each in found}
        return self._known

    def _forget_old(self) -> None:
        """Remove the oldest that have ended, so that one more has room."""
        known = self._all()
        ended = [each for each in known.values() if not each.running]
        sizes = [sum(each.stream(name).kept for name in STREAMS) for each in ended]
        while ended and (len(ended) >= KEPT or sum(sizes) > KEPT_BYTES):
            oldest = ended.pop(0)
            del sizes[0]
            shutil.rmtree(oldest.folder, ignore_errors=True)
            del known[oldest.asked["id"]]
