"""Identifies the processes of a workspace reliably, and ends them.

A process id alone identifies nothing, because ids are reused. A process is identified by its id and its start time;
both are valid within one boot only. The processes of a workspace are found by the marks in their environment, because
a terminal runs in a session of its own and outlives its parent: neither the process group nor the tree of parents
contains all of them.

Start times are clock ticks since boot (proc(5)): unlike psutil's `create_time`, they do not move with the clock.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.volume.environment import started_with
from workers.runtime.exits import signal_name
from workers.runtime.polling import wait_until

POLL = 0.01
"""Seconds between two looks at processes that were told to end; VS Code takes 15 ms."""

KILL_LIMIT = 5.0
"""Seconds after SIGKILL until a process that still exists (stuck in the kernel) is reported."""

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
UNREADABLE = (psutil.NoSuchProcess, psutil.AccessDenied)


@dataclass(frozen=True, order=True)
class Process:
    """One process: its id, and its start in clock ticks since boot."""

    pid: int
    started: int


def current_boot() -> str:
    """Names this boot. In a container it also names this run of the container, which has process ids of its own."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{identify(1).started}"


def identify(pid: int) -> Process:
    """The process that has this id now; start 0, which matches nothing, when no process has it."""
    try:
        return Process(pid, _started(psutil.Process(pid)))
    except psutil.NoSuchProcess:
        return Process(pid, 0)


def alive(process: Process) -> bool:
    """Whether the process still runs. A zombie does not: only its exit status is left."""
    try:
        found = psutil.Process(process.pid)
        with found.oneshot():
            return _started(found) == process.started and found.status() not in ENDED
    except psutil.NoSuchProcess:
        return False


def spawn(
    command: list[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
) -> Process:
    """Start a detached process whose output goes to `log`, which also gets a line about how it ended.

    It leads a session of its own and outlives this process. Raises `OSError` when the command cannot be run.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = identify(child.pid)
    threading.Thread(target=_note_end, args=(child, log), name=f"end of {child.pid}", daemon=True).start()
    return process


def marked(marks: Iterable[str]) -> set[Process]:
    """Every other process that was started with all of these `NAME=value` in its environment.

    The environment of another user's processes cannot be read; workspaces have none of those.
    """
    wanted = [f"\0{mark}\0".encode() for mark in marks]
    found = started_with(lambda environment: all(mark in environment for mark in wanted))
    return {process for process in map(identify, found) if alive(process)}


def descendants(roots: Iterable[Process]) -> set[Process]:
    """These processes and all their descendants, as far as they are alive."""
    children: dict[int, list[int]] = {}
    for pid in psutil.pids():
        with contextlib.suppress(*UNREADABLE):
            children.setdefault(psutil.Process(pid).ppid(), []).append(pid)
    found: set[Process] = set()
    pending = [process for process in roots if alive(process)]
    while pending:
        process = pending.pop()
        if process not in found:
            found.add(process)
            pending += [identify(child) for child in children.get(process.pid, [])]
    return {process for process in found if alive(process)}


def end(
    leaders: Iterable[Process],
    find: Callable[[], set[Process]],
    grace: float,
    patience: float = math.inf,
    *,
    told: bool = False,
) -> set[Process]:
    """End the leaders, all their descendants, and all that `find` finds. Returns the processes that are left, normally
    none.

    The leaders get SIGTERM first, unless an earlier call `told` them, so that they can end their children in order;
    then the others get it. After `grace` seconds all that are left are killed, also those they started meanwhile. Where
    `patience` (s) ends sooner, the rest is left to the next call.
    """
    kill_at = time.monotonic() + grace
    deadline = min(kill_at, time.monotonic() + patience)
    first = {leader for leader in leaders if alive(leader)}
    family = descendants(find() | first)
    if not told:
        send(first, signal.SIGTERM)
    _wait(first, deadline)
    if not any(map(alive, first)) or time.monotonic() >= kill_at:
        rest = descendants(find() | family)
        send(rest, signal.SIGTERM)
        _wait(rest, deadline)
        family |= rest
    remaining = descendants(find() | family)
    if time.monotonic() < kill_at:
        return remaining
    deadline = time.monotonic() + KILL_LIMIT
    while remaining and time.monotonic() < deadline:
        send(remaining, signal.SIGKILL)
        _wait(remaining, min(deadline, time.monotonic() + 0.5))
        remaining = descendants(find() | remaining)
    return remaining


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    """Signal these processes, but no other process that got the id of one of them."""
    for process in processes:
        if alive(process):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def _wait(processes: Iterable[Process], deadline: float) -> None:
    # Not psutil.wait_procs: it would take the exit status of our own children from `_note_end`.
    pending = list(processes)
    wait_until(lambda: not any(map(alive, pending)), deadline - time.monotonic(), POLL)


def _note_end(child: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a child process, so that it leaves no zombie, and write to its log how it ended.

    The line is written before the zombie is reaped: who sees that the process is gone finds the line.
    """
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    status = child.wait()
    ending = f"killed by {signal_name(-status)}" if status < 0 else f"exited with status {status}"
    # The log's folder is gone when the workspace was removed.
    with contextlib.suppress(OSError), log.open("a") as output:
        output.write(f"process {child.pid} {ending}\n")


def _started(process: psutil.Process) -> int:
    # Both terms contain the boot time of the clock as it is now: the difference does not.
    return round((process.create_time() - psutil.boot_time()) * CLOCK_TICKS)
