"""Processes of this machine, told apart for good and ended for good.

A process id alone names nobody: it is used again. A process is known by its id and its start time,
and both count only within one boot. What belongs to a workspace is found by the marks in its
environment, because a terminal runs in a session of its own and outlives its parent: neither the
process group nor the tree of parents leads to all of it.

Everything is read from /proc (see proc(5)); times there are clock ticks since boot.
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

POLL = 0.01
"""Seconds between looks at processes that were told to end; VS Code takes 15 ms."""

KILL_LIMIT = 5.0
"""Seconds after SIGKILL until a process that is still there (stuck in the kernel) is reported."""

STAT_STATE, STAT_PARENT, STAT_STARTED = 0, 1, 19
"""Where these stand in /proc/PID/stat after the name's closing parenthesis; proc(5) counts from 3."""


@dataclass(frozen=True, order=True)
class Process:
    """One process: its id, and its start in clock ticks since boot."""

    pid: int
    started: int


def current_boot() -> str:
    """Names this boot; in a container also this run of it, which has process ids of its own."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{_started(1)}"


def identify(pid: int) -> Process:
    """The process that has this id now; start 0, which matches nothing, when there is none."""
    return Process(pid, _started(pid))


def alive(process: Process) -> bool:
    """Whether it still runs. A zombie doesn't: nothing of it is left but its exit status."""
    stat = _stat(process.pid)
    return stat is not None and int(stat[STAT_STARTED]) == process.started and stat[STAT_STATE] not in "ZX"


def spawn(
    command: list[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
) -> Process:
    """Start a detached process, output to `log`; the way it ends is added there as one line.

    It leads a session of its own and outlives this process. Raises `OSError` when it can't be run.
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
    """Every process, but this one, that was started with all of these `NAME=value` in its environment.

    Another user's processes can't be looked into and are none of ours.
    """
    wanted = [f"\0{mark}\0".encode() for mark in marks]
    found = set()
    for pid in _pids():
        try:
            environment = b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if pid != os.getpid() and all(mark in environment for mark in wanted):
            found.add(identify(pid))
    return {process for process in found if alive(process)}


def descendants(roots: Iterable[Process]) -> set[Process]:
    """These processes and all below them that are alive."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None:
            children.setdefault(int(stat[STAT_PARENT]), []).append(pid)
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
    """End the leaders, all below them, and all that `find` finds; returns what is left: nothing, normally.

    First the leaders alone are asked, unless they were `told` before, so that they can end their own in order; then the
    rest is asked; whoever is there after `grace` seconds is killed, and whoever those started meanwhile. Where
    `patience` (s) ends before, the rest is left to the next call.
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
    """Signal these, unless one has ended and its id has gone to another."""
    for process in processes:
        if alive(process):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def _wait(processes: Iterable[Process], deadline: float) -> None:
    pending = list(processes)
    while (pending := [process for process in pending if alive(process)]) and time.monotonic() < deadline:
        time.sleep(POLL)


def _note_end(child: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a child of ours: it leaves no zombie, and its log tells how it ended.

    The line is there before the zombie goes, so whoever sees the process gone finds it.
    """
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    status = child.wait()
    ending = f"killed by {_signal_name(-status)}" if status < 0 else f"exited with status {status}"
    # The log's folder may be gone already, when the workspace was removed.
    with contextlib.suppress(OSError), log.open("a") as output:
        output.write(f"process {child.pid} {ending}\n")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, which may itself hold spaces and parentheses."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text[text.rfind(")") + 2 :].split() or None


def _started(pid: int) -> int:
    stat = _stat(pid)
    return int(stat[STAT_STARTED]) if stat else 0
