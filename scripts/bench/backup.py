"""How fast a backup is, verification included, against Python's `zipfile` on the same tree.

Each round runs both, each in a process of its own, so that neither warms the other's memory and the
peak is one backup's. `zipfile` compresses at its default level and verifies nothing.
"""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from app.core.backups.store import BackupStore, backup_name
from app.core.sessions.model import Identity
from scripts.bench.table import Row
from workers.archive import write_backup

PROJECT = Path(__file__).resolve().parents[2]

SPEEDUP_TARGET = 3.0
MEMORY_TARGET = 100.0
"""Times as fast as `zipfile`, and MB of peak RSS: what the service promises."""

INCOMPRESSIBLE_SHARE = 0.2
"""Of the bytes: images, archives and compiled files in a workspace."""

ROUND_LIMIT = 600.0
"""Seconds one process may take."""


def run(megabytes: int = 300, files: int = 10_000, rounds: int = 3) -> list[Row]:
    """Measure; rows of label, value and target."""
    with tempfile.TemporaryDirectory(prefix="bench-backup-") as folder:
        tree = Path(folder) / "app"
        make_tree(tree, megabytes * 1_000_000, files)
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(_measure("ours", tree))
            theirs.append(_measure("zipfile", tree))
    speed = statistics.median(megabytes / seconds for seconds, _ in ours)
    baseline = statistics.median(megabytes / seconds for seconds, _ in theirs)
    peak = max(peak for _, peak in ours)
    return [
        ("backup, verified (MB/s)", f"{speed:.0f}", ""),
        ("zipfile, default level, unverified (MB/s)", f"{baseline:.0f}", ""),
        ("backup against zipfile", f"{speed / baseline:.1f}x", f">= {SPEEDUP_TARGET:.0f}x"),
        ("backup, peak RSS (MB)", f"{peak:.0f}", f"< {MEMORY_TARGET:.0f}"),
    ]


def make_tree(root: Path, size: int, files: int) -> None:
    """About `size` bytes in `files` files whose sizes differ as those of a source tree do: most are
    small, a few hold much. The same tree for the same numbers."""
    chance = random.Random(1)
    weights = [chance.lognormvariate(0, 1.5) for _ in range(files)]
    scale = size / sum(weights)
    words = ["".join(chance.choices("etaoinshrdlucm", k=chance.randint(2, 9))) for _ in range(4000)]
    text = " ".join(chance.choices(words, k=400_000)).encode()
    for number, weight in enumerate(weights):
        length = int(weight * scale)
        folder = root / f"module{number % 40}" / f"part{number % 400}"
        folder.mkdir(parents=True, exist_ok=True)
        if chance.random() < INCOMPRESSIBLE_SHARE:
            content = chance.randbytes(length)
        else:
            start = chance.randrange(len(text) // 2)
            content = (text[start:] * (length // (len(text) - start) + 1))[:length]
        (folder / f"file{number}.txt").write_bytes(content)


def _measure(which: str, tree: Path) -> tuple[float, float]:
    """Seconds and peak RSS in MB of one run in a fresh process."""
    command = [sys.executable, "-m", "scripts.bench.backup", which, str(tree)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=ROUND_LIMIT, cwd=PROJECT)
    measured = json.loads(answer.stdout)
    return measured["seconds"], measured["peak"]


def back_up(which: str, tree: Path) -> dict[str, float]:
    """One backup of `tree`, in this process."""
    with tempfile.TemporaryDirectory(prefix="bench-store-", dir=tree.parent) as store:
        start = time.perf_counter()
        if which == "ours":
            now = time.time()
            identity = Identity(uuid="benchbch", user_id="bench", created_at=now)
            write_backup(tree, BackupStore(f"file://{store}"), backup_name("benchbch", now), identity, now)
        else:
            plain_zip(tree, Path(store) / "plain.zip")
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def plain_zip(tree: Path, target: Path) -> None:
    """What one would write by hand."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder, _, names in os.walk(tree):
            for name in names:
                path = os.path.join(folder, name)
                archive.write(path, os.path.relpath(path, tree))


if __name__ == "__main__":
    print(json.dumps(back_up(sys.argv[1], Path(sys.argv[2]))))
