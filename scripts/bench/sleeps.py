"""What a sleep costs after which a restore point is made, beside one of an unchanged workspace, which makes none.

The processor time is that of all processes of the service with their children, among them the workspace's that end,
without what they use while nothing happens, which is measured in the same rounds: only the difference of the two sleeps
means something. What is stored is counted in the store.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from scripts.bench.backup import make_tree
from scripts.bench.restore_points import CHANGED
from scripts.bench.table import Row
from scripts.bench.wake import call, service

PATIENCE = 120.0
"""s for a restore point to be made."""

SETTLED = 3.0
"""s after the end of a sleep, or without one, over which processor time is measured: all of the work is in it."""


@dataclass
class Costs:
    """Of each sleep: s of a processor, s of time, files and bytes that were stored."""

    cpu: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)


def run(megabytes: int = 300, files: int = 10_000, rounds: int = 5) -> list[Row]:
    """Measure in rounds that alternate; rows of label, value and target."""
    unchanged, changed = Costs(), Costs()
    with (
        tempfile.TemporaryDirectory(prefix="bench-sleeps-") as folder,
        service(Path(folder) / "data", IDLE_TIMEOUT="0") as url,
    ):
        data = Path(folder) / "data"
        uuid = call(url, "POST", "/session/create", {"user_id": "bench"}, "wait=30")["uuid"]
        app = data / "workspaces" / uuid / "app"
        make_tree(app, megabytes * 1_000_000, files)
        _sleep(url, uuid, data, Costs(), idle=0.0, points=True)
        for _ in range(rounds):
            call(url, "POST", f"/session/{uuid}/wake", None, "wait=60")
            idle = _idle(data)
            _sleep(url, uuid, data, unchanged, idle=idle, points=False)
            call(url, "POST", f"/session/{uuid}/wake", None, "wait=60")
            _change(app)
            _sleep(url, uuid, data, changed, idle=idle, points=True)
        call(url, "DELETE", f"/session/{uuid}?backup=false")
    more = statistics.median(after - before for before, after in zip(unchanged.cpu, changed.cpu, strict=True))
    return [
        ("sleep of an unchanged workspace: objects stored", f"{max(unchanged.objects)}", "0"),
        (f"sleep after {CHANGED} changed files: objects stored", f"{statistics.median(changed.objects):.0f}", ""),
        ("  stored (MB)", f"{statistics.median(changed.stored) / 1e6:.2f}", ""),
        ("  more than an unchanged one takes (s of a processor)", f"{more:.2f}", ""),
        ("  until its restore point is made, from the call (s)", f"{statistics.median(changed.took):.2f}", ""),
    ]


def _sleep(url: str, uuid: str, data: Path, costs: Costs, *, idle: float, points: bool) -> None:
    """Put it to sleep, wait for its restore point if it makes one, and note what that cost. `idle` is what the service
    uses anyway, in s of a processor a second."""
    before, objects, stored, began = _cpu(data), *_stored(data, uuid), time.monotonic()
    newest = _newest(url, uuid)
    call(url, "POST", f"/session/{uuid}/scale-down")
    deadline = began + PATIENCE
    while points and _newest(url, uuid) == newest:
        if time.monotonic() > deadline:
            raise RuntimeError("the restore point was not made in time")
        time.sleep(0.1)
    costs.took.append(time.monotonic() - began)
    time.sleep(SETTLED)
    costs.cpu.append(_cpu(data) - before - idle * (time.monotonic() - began))
    after = _stored(data, uuid)
    costs.objects.append(after[0] - objects)
    costs.stored.append(after[1] - stored)


def _newest(url: str, uuid: str) -> list[str]:
    """The id of its newest restore point, if there is one."""
    return [each["id"] for each in call(url, "GET", f"/session/{uuid}/restore-points?limit=1")["restore_points"]]


def _idle(data: Path) -> float:
    before, began = _cpu(data), time.monotonic()
    time.sleep(SETTLED)
    return (_cpu(data) - before) / (time.monotonic() - began)


def _cpu(data: Path) -> float:
    """s of a processor that the service's own processes, and their children that ended, have used so far."""
    total = 0.0
    for process in psutil.process_iter():
        try:
            environ = process.environ()
            if environ.get("DATA_DIR") == str(data) and "WORKSPACE_UUID" not in environ:
                total += sum(process.cpu_times()[:4])
        except psutil.Error:
            continue
    return total


def _stored(data: Path, uuid: str) -> tuple[int, int]:
    """Files in the session's part of the store, and their bytes."""
    paths = [Path(folder) / name for folder, _, names in os.walk(data / "backups" / uuid) for name in names]
    return len(paths), sum(path.stat().st_size for path in paths)


def _change(app: Path) -> None:
    paths = sorted(app.rglob("*.txt"))
    for path in paths[:: len(paths) // CHANGED][:CHANGED]:
        path.write_bytes(path.read_bytes()[:2_000] + os.urandom(8).hex().encode())
