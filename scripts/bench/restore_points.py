"""What restore points cost, beside the zip of the same tree in the same run.

Each round makes the zip, a first point, a second one after ten files changed, restores that, and takes a full look,
which reads all data back. Each does so in a process of its own, as a worker would; the time is the engine's, without
what a Job in a cluster adds.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.core.backups.store import BackupStore, backup_name
from app.core.restore_points.names import new_id
from app.core.sessions.model import Identity
from app.core.storage.archive_keys import ArchiveKeys, new_key
from scripts.bench.backup import PROJECT, ROUND_LIMIT, make_tree
from scripts.bench.table import Row
from workers.archive import write_backup
from workers.restore_points import make_point, restore_point
from workers.runtime.base import PointOrder, never

UUID, USER = "benchbch", "bench"
CHANGED = 10
"""Files between the first point and the second."""

SPEED_TARGET, SECOND_TARGET, STORED_TARGET = 80.0, 2.0, 1.0
"""MB/s of a first point; s and MB of a second: what the service promises."""


def run(megabytes: int = 300, files: int = 10_000, rounds: int = 5) -> list[Row]:
    """Measure; rows of label, value and target."""
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench-points-") as folder:
        volume = Path(folder) / "volume"
        make_tree(volume / "app", megabytes * 1_000_000, files)
        for number in range(rounds):
            # Alternately, so that neither always finds the tree in memory.
            order = ("zip", "points") if number % 2 else ("points", "zip")
            found.append({name: value for which in order for name, value in _measure(which, volume).items()})

    def middle(name: str) -> float:
        return statistics.median(each[name] for each in found)

    return [
        ("zip, encrypted and verified (MB/s)", f"{megabytes / middle('zip'):.0f}", ""),
        ("zip, stored (MB)", f"{middle('zip_stored'):.0f}", ""),
        ("first point (MB/s)", f"{megabytes / middle('first'):.0f}", f">= {SPEED_TARGET:.0f}"),
        ("first point, stored (MB)", f"{middle('first_stored'):.0f}", ""),
        (f"second point, {CHANGED} files changed (s)", f"{middle('second'):.2f}", f"< {SECOND_TARGET:.0f}"),
        ("second point, stored (MB)", f"{middle('second_stored'):.2f}", f"< {STORED_TARGET:.0f}"),
        ("point of unchanged files (s)", f"{middle('unchanged'):.2f}", ""),
        ("restore (s)", f"{middle('restore'):.2f}", ""),
        ("full look: all content, all stored data, prune (s)", f"{middle('full'):.2f}", ""),
        ("peak RSS of restic (MB)", f"{max(each['peak'] for each in found):.0f}", ""),
    ]


def _measure(which: str, volume: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "scripts.bench.restore_points", which, str(volume)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=ROUND_LIMIT, cwd=PROJECT)
    return dict(json.loads(answer.stdout))


def zipped(volume: Path, store: Path) -> dict[str, float]:
    """The zip of the tree."""
    now = time.time()
    identity = Identity(uuid=UUID, user_id=USER, created_at=now)
    files = BackupStore(f"file://{store}", ArchiveKeys(new_key()))
    taken = _timed(lambda: write_backup(volume / "app", files, backup_name(UUID, now), identity, now))
    return {"zip": taken, "zip_stored": sum(path.stat().st_size for path in store.rglob("*.zip")) / 1e6}


def pointed(volume: Path, store: Path) -> dict[str, float]:
    """The restore points of the tree."""
    keys, url, limits = ArchiveKeys(new_key()).session(UUID), f"file://{store}", (10**12, 10**7)
    order = PointOrder(
        uuid=UUID,
        id=new_id(),
        at=time.time(),
        trigger="interval",
        keep=(3, 24, 7, 4),
        max_bytes=limits[0],
        max_entries=limits[1],
        identity={"user_id": USER},
    )
    figures: dict[str, float] = {}

    def make(name: str, **more: object) -> None:
        nonlocal order
        order = replace(order, id=new_id(), at=time.time(), **more)  # type: ignore[arg-type]
        begun = time.perf_counter()
        made = make_point(volume, url, keys, order, never)
        figures[name], figures[f"{name}_stored"] = time.perf_counter() - begun, made.stored / 1e6
        order = replace(order, parent=made.id, fingerprint=made.fingerprint)

    make("first")
    files = sorted((volume / "app").rglob("*.txt"))
    for path in files[:: len(files) // CHANGED][:CHANGED]:
        path.write_bytes(path.read_bytes()[:2_000] + b" changed")
    make("second")
    make("unchanged")
    target = store / "restored"
    target.mkdir()
    newest = order.parent
    figures["restore"] = _timed(lambda: restore_point(target, url, keys, newest, limits, never, user_id=USER))
    make("full", full=True)
    return figures | {"peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-store-", dir=Path(sys.argv[2]).parent) as folder:
        measure = {"zip": zipped, "points": pointed}[sys.argv[1]]
        print(json.dumps(measure(Path(sys.argv[2]), Path(folder))))
