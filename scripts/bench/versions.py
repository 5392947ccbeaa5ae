"""A wake of this checkout against one of another, in one run: whether a change made it slower, or costlier.

Both services run side by side, each with one workspace, and are woken in turn. The processor's time is that of
everything that belongs to a service, workspaces included, from the wake until a while after it: what a service does in
idle time is in it, on both sides.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scripts.bench import wake
from scripts.bench.table import Row

TARGET = 1.05
SETTLED = 2.0
"""s after a wake that still count as it."""


@dataclass
class Version:
    """One checkout's service. `woken` and `cpu` are in seconds, one for each round."""

    data: Path
    url: str
    uuid: str
    woken: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def wake(self) -> None:
        """Put its workspace to sleep, and measure how it wakes."""
        wake.call(self.url, "POST", f"/session/{self.uuid}/scale-down")
        before, began = self._cpu(), time.perf_counter()
        answer = wake.call(self.url, "POST", f"/session/{self.uuid}/wake", None, "wait=30")
        self.woken.append(time.perf_counter() - began)
        if answer["status"] != "active":
            raise RuntimeError(f"the wake ended in {answer['status']}")
        time.sleep(max(0.0, began + SETTLED - time.perf_counter()))
        self.cpu.append(self._cpu() - before)

    def _cpu(self) -> float:
        """Seconds all its processes have used so far, those that ended among their parents' children."""
        used = 0.0
        for process in psutil.process_iter():
            try:
                if process.environ().get("DATA_DIR") == str(self.data):
                    times = process.cpu_times()
                    used += times.user + times.system
            except psutil.Error:
                continue
        return used


def run(other: Path, rounds: int) -> list[Row]:
    """Measure in rounds that alternate; rows of label, value and target."""
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-versions-")))
        before, after = (
            _version(running, folder / name, project) for name, project in (("before", other), ("after", wake.PROJECT))
        )
        for number in range(rounds + 1):
            for version in (before, after) if number % 2 else (after, before):
                version.wake()
    return [
        *_compared("wake, request to active (ms)", before.woken, after.woken, 1000.0),
        *_compared(f"processor, a wake and {SETTLED:.0f} s (ms)", before.cpu, after.cpu, 1000.0),
    ]


def _version(running: ExitStack, data: Path, project: Path) -> Version:
    url = running.enter_context(wake.service(data, project=project))
    uuid = wake.call(url, "POST", "/session/create", {"user_id": "bench"}, "wait=30")["uuid"]
    return Version(data, url, uuid)


def _compared(label: str, before: list[float], after: list[float], unit: float) -> list[Row]:
    """Medians of both without the first round, which warms up, and the one against the other."""
    old, new = statistics.median(before[1:]), statistics.median(after[1:])
    return [
        (f"{label}, other checkout", f"{old * unit:.0f}", ""),
        (f"{label}, this one", f"{new * unit:.0f}", ""),
        ("  this one against the other", f"{new / old:.2f}x", f"<= {TARGET}x"),
    ]
