"""What the workspace uses: CPU, memory and disk, once a minute, for the manager.

In a cluster the editor and the agent are two containers, each with a control group of its own, whose folder
WORKSPACE_CGROUP names; the editor writes its figures to a file (app/editor/resources.js). On one machine both add up
their processes. Users of the workspace can write that file too: it is shown, and nothing is decided by it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from app.agent.activity_reporter import FOLDER, read_json

RESOURCES = "resources.json"
"""In the folder of the signals: what the editor's container uses."""

WAITS = (5.0, 10.0)
"""s until the first reading, and from there to the next: an awake workspace is soon shown."""

INTERVAL = 60.0
"""s between two later readings."""

WALK_SHARE = 500
"""A walk over the files is followed by so many times its length without another."""

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
BLOCK = 512
"""Bytes of a block of `st_blocks`."""

OLDEST = 60.0
"""s after which the editor's figures count no more: it has ended."""


class Used(NamedTuple):
    """CPU time (s) counted since any moment, and memory (bytes), `at` a time (s since the epoch)."""

    at: float
    cpu: float
    memory: int


def own_use(group: str, pid: int, now: float) -> Used:
    """That of this container, or of the process `pid` and those below it."""
    return (_of_group(Path(group), now) if group else None) or _of_processes(pid, now)


def _of_group(folder: Path, now: float) -> Used | None:
    """As the kubelet counts a container's working set: without files that the kernel can forget at once. The folder is
    that of cgroup v2, or has one for each part of v1."""
    try:
        if (folder / "memory").is_dir():
            cpu = int((folder / "cpuacct" / "cpuacct.usage").read_text()) / 1e9
            memory, stat = folder / "memory" / "memory.usage_in_bytes", folder / "memory" / "memory.stat"
            forgotten = _field(stat, "total_inactive_file")
        else:
            cpu = _field(folder / "cpu.stat", "usage_usec") / 1e6
            memory, forgotten = folder / "memory.current", _field(folder / "memory.stat", "inactive_file")
        return Used(now, cpu, max(0, int(memory.read_text()) - forgotten))
    except (OSError, ValueError, KeyError):
        return None


def _field(path: Path, name: str) -> int:
    """A number in a file with a name and a number in each line; raises `KeyError`."""
    return int(dict(line.split(" ", 1) for line in path.read_text().splitlines())[name])


def _of_processes(pid: int, now: float) -> Used:
    cpu = memory = 0
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        with contextlib.suppress(OSError, ValueError, IndexError):
            # A process's name may have brackets and blanks.
            rest = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            cpu += sum(map(int, rest[11:15]))
            memory += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * PAGE
            waiting += _children(each)
    return Used(now, cpu / TICKS, memory)


def _children(pid: int) -> Iterator[int]:
    for thread in os.listdir(f"/proc/{pid}/task"):
        yield from map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())


def editors_use(home: Path, now: float) -> Used | None:
    """What the editor wrote last, None for nothing that counts."""
    told = read_json(home / FOLDER / RESOURCES)
    at, cpu, memory = (_number(told.get(name)) for name in ("at", "cpu_seconds", "memory_bytes"))
    if at is None or cpu is None or memory is None or not now - OLDEST <= at <= now + OLDEST:
        return None
    return Used(at, cpu, int(memory))


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e18
    return float(value) if known else None


def disk_use(volume: Path) -> int:
    """Bytes of a volume that are in use: those of its filesystem, or of its files where it has none of its own."""
    if os.path.ismount(volume):
        found = os.statvfs(volume)
        return (found.f_blocks - found.f_bfree) * found.f_frsize
    return _walked(volume)


def _walked(volume: Path) -> int:
    total, waiting = 0, [os.fspath(volume)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_blocks * BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
    return total


class ResourceMeter:
    """Reads the workspace's use, and keeps what is not reported yet."""

    def __init__(self, home: Path, volume: Path, group: str) -> None:
        self._home = home
        self._volume = volume
        self._group = group
        self._before: dict[str, Used] = {}
        self._disk = 0
        self._walk_due = 0.0
        self._fresh: dict[str, float] | None = None

    def run(self, stopping: threading.Event) -> None:
        """Read until `stopping`."""
        waits = iter(WAITS)
        while not stopping.wait(next(waits, INTERVAL)):
            self.read(time.time())

    def read(self, now: float) -> None:
        """Read anew. The first reading has nothing to compare with, and is no sample."""
        found = {"agent": own_use(self._group, os.getpid(), now)}
        if editor := editors_use(self._home, now):
            found["editor"] = editor
        first, before, self._before = not self._before, self._before, found
        if time.monotonic() >= self._walk_due:
            began = time.monotonic()
            with contextlib.suppress(OSError):
                self._disk = disk_use(self._volume)
            self._walk_due = time.monotonic() + WALK_SHARE * (time.monotonic() - began)
        if not first:
            self._fresh = {
                "cpu": round(sum(_cores(before.get(name), used) for name, used in found.items()), 4),
                "memory_bytes": sum(used.memory for used in found.values()),
                "disk_bytes": self._disk,
            }

    def take(self) -> dict[str, float] | None:
        """The last sample, None once it was taken."""
        sample, self._fresh = self._fresh, None
        return sample


def _cores(before: Used | None, now: Used) -> float:
    """CPU time a second; 0 where nothing is known, and of a container that was started anew."""
    if before is None or now.at <= before.at or now.cpu < before.cpu:
        return 0.0
    return (now.cpu - before.cpu) / (now.at - before.at)
