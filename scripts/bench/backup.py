"""How fast a backup is, verification included, encrypted and not, against Python's `zipfile` on the same tree.

Each round runs all three, each in a process of its own, so that none warms another's memory and the
peak is one backup's. `zipfile` compresses at its default level and verifies nothing. The zips are read once more, as a
download or a restore reads them.
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

from app.core.backups.backup_access import CHUNK
from app.core.backups.store import BackupStore, backup_name
from app.core.sessions.model import Identity
from app.core.storage.archive_keys import ArchiveKeys, new_key
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
        rows: dict[str, list[dict[str, float]]] = {"encrypted": [], "plain": [], "zipfile": []}
        for _ in range(rounds):
            for which, measured in rows.items():
                measured.append(_measure(which, tree))
    speed, plain, baseline = (statistics.median(megabytes / each["seconds"] for each in rows[name]) for name in rows)
    reading, plain_reading = (statistics.median(each["reading"] for each in rows[name]) for name in list(rows)[:2])
    peak = max(each["peak"] for each in rows["encrypted"])
    return [
        ("backup, verified, not encrypted (MB/s)", f"{plain:.0f}", ""),
        ("the encrypted one against it", f"{speed / plain:.2f}x", ""),
        ("reading its zip, encrypted and not (MB/s of zip)", f"{reading:.0f} and {plain_reading:.0f}", ""),
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


def _measure(which: str, tree: Path) -> dict[str, float]:
    """Seconds, peak RSS in MB, and MB/s of reading the zip again, of one run in a fresh process."""
    command = [sys.executable, "-m", "scripts.bench.backup", which, str(tree)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=ROUND_LIMIT, cwd=PROJECT)
    measured: dict[str, float] = json.loads(answer.stdout)
    return measured


def back_up(which: str, tree: Path) -> dict[str, float]:
    """One backup of `tree`, in this process."""
    with tempfile.TemporaryDirectory(prefix="bench-store-", dir=tree.parent) as store:
        start, reading = time.perf_counter(), 0.0
        if which == "zipfile":
            plain_zip(tree, Path(store) / "plain.zip")
            seconds = time.perf_counter() - start
        else:
            now = time.time()
            identity = Identity(uuid="benchbch", user_id="bench", created_at=now)
            files = BackupStore(f"file://{store}", ArchiveKeys(new_key() if which == "encrypted" else ""))
            name = backup_name("benchbch", now)
            write_backup(tree, files, name, identity, now)
            seconds = time.perf_counter() - start
            reading = _read(files, name)
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "reading": reading}


def _read(files: BackupStore, name: str) -> float:
    """MB/s of reading a whole zip."""
    size = files.size(name) / 1e6
    start = time.perf_counter()
    with files.open(name) as stored:
        while stored.read(CHUNK):
            continue
    return size / (time.perf_counter() - start)


def plain_zip(tree: Path, target: Path) -> None:
    """What one would write by hand."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder, _, names in os.walk(tree):
            for name in names:
                path = os.path.join(folder, name)
                archive.write(path, os.path.relpath(path, tree))


if __name__ == "__main__":
    print(json.dumps(back_up(sys.argv[1], Path(sys.argv[2]))))
