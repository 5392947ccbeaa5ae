"""How fast the API answers the call clients make most, `GET /session/{uuid}`: key, limits and store.

    python scripts/bench/api.py [--rounds 3] [--seconds 3]

Against a bare Flask route under the same gunicorn, in rounds that alternate, so that whatever else the
machine does hits both; and by itself with more and more sessions in the store.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(Path(__file__).resolve().parent)]

from app.sessions import keys  # noqa: E402
from app.sessions.connections import connect  # noqa: E402
from app.sessions.model import Record, Status, new_uuid  # noqa: E402
from app.sessions.store import SessionStore  # noqa: E402
from scripts.bench.servers import latencies, percentile, running_gunicorn, running_redis, throughput  # noqa: E402

RATIO_TARGET = 0.35
GROWTH_TARGET = 1.2
SWEEP_TARGET = 5.0
"""Of a bare route's requests a second; of the latency with 100 sessions; ms for the sweep's query."""

SIZES = (100, 1_000, 10_000)
SAMPLES = 600
"""Requests a round and size: enough for a p99."""

DUE = 10
IDLE_TIMEOUT = 900.0

Row = tuple[str, str, str]


def run(rounds: int = 3, seconds: float = 3.0) -> list[Row]:
    """Measure; rows of label, value and target."""
    with tempfile.TemporaryDirectory(prefix="bench-api-") as name:
        folder = Path(name)
        with running_redis(folder) as redis_url:
            store = SessionStore(connect(redis_url, 5.0))
            rows = compare(store, folder, redis_url, rounds, seconds)
            return rows + grow(store, folder, redis_url, rounds) + [sweep(store)]


def compare(store: SessionStore, folder: Path, redis_url: str, rounds: int, seconds: float) -> list[Row]:
    """Requests a second of the API and of the bare route, and their ratio."""
    path = f"/session/{fill(store, 1)[0]}"
    ours, bare = [], []
    with (
        running_gunicorn("app.main:create_app()", folder, redis_url) as api_port,
        running_gunicorn("scripts.bench.bare:create_app()", folder, redis_url) as bare_port,
    ):
        for port in (api_port, bare_port):
            throughput(port, path, 0.5)
        for _ in range(rounds):
            ours.append(throughput(api_port, path, seconds))
            bare.append(throughput(bare_port, path, seconds))
    ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, bare, strict=True))
    return [
        ("GET /session/{uuid} (requests/s)", f"{statistics.median(ours):.0f}", ""),
        ("bare Flask route (requests/s)", f"{statistics.median(bare):.0f}", ""),
        ("GET /session/{uuid} against the bare route", f"{ratio:.2f}x", f">= {RATIO_TARGET}x"),
    ]


def grow(store: SessionStore, folder: Path, redis_url: str, rounds: int) -> list[Row]:
    """Latency with more and more sessions: a Redis for each number of them, asked in turns."""
    samples: dict[int, list[float]] = {size: [] for size in SIZES}
    with running_gunicorn("app.main:create_app()", folder, redis_url) as port:
        uuids: list[str] = []
        for size in SIZES:
            uuids += fill(store, size - len(uuids))
            latencies(port, [f"/session/{uuid}" for uuid in uuids[-50:]])
            for _ in range(rounds):
                step = max(1, len(uuids) // SAMPLES)
                paths = [f"/session/{uuid}" for uuid in (uuids[::step] * SAMPLES)[:SAMPLES]]
                samples[size] += latencies(port, paths)
    rows = [
        (
            f"latency with {size:,} sessions, p50 / p99 (ms)",
            f"{percentile(samples[size], 50):.2f} / {percentile(samples[size], 99):.2f}",
            "",
        )
        for size in SIZES
    ]
    growth = percentile(samples[SIZES[-1]], 50) / percentile(samples[SIZES[0]], 50)
    return [*rows, ("latency, 10,000 sessions against 100 (p50)", f"{growth:.2f}x", f"<= {GROWTH_TARGET}x")]


def sweep(store: SessionStore) -> Row:
    """The idle sweep's query at 10,000 sessions, ten of them due."""
    taken = []
    for _ in range(100):
        started = time.perf_counter()
        found = store.due(keys.IDLE, time.time())
        taken.append((time.perf_counter() - started) * 1000)
        if len(found) != DUE:
            raise RuntimeError(f"{len(found)} sessions are due instead of {DUE}")
    return ("idle sweep's due query, 10,000 sessions, 10 due (ms)", f"{statistics.median(taken):.2f}", "< 5 ms")


def fill(store: SessionStore, count: int) -> list[str]:
    """Add active sessions to the store, each with an idle deadline; the first ten ever are due."""
    now = time.time()
    due = max(0, DUE - store.counts()[Status.ACTIVE])
    uuids = [new_uuid() for _ in range(count)]
    for number, uuid in enumerate(uuids):
        created = Record(uuid=uuid, user_id=f"user{number}", created_at=now, status=Status.CREATED, last_activity=now)
        store.create(created, quota=10_000)
        idle_at = now - 1 if number < due else now + IDLE_TIMEOUT
        store.change(uuid, now, to=Status.ACTIVE, settle=True, idle_at=idle_at, started_at=now, pod_name="local")
    return uuids


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    for label, value, target in run(options.rounds, options.seconds):
        print(f"{label:55} {value:>16} {target:>10}")
