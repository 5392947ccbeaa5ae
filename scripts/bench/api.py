"""How fast the API answers the call clients make most, `GET /session/{uuid}`: key, limits and store.

Against a bare Flask route under the same gunicorn, in rounds that alternate, so that whatever else the
machine does hits both; and by itself with more and more sessions in the store.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from app.core.redis import keys
from app.core.redis.connections import connect
from app.core.sessions.model import Record, Status, new_uuid
from app.core.sessions.store import SessionStore
from scripts.bench.servers import latencies, percentile, running_gunicorn, running_redis, throughput
from scripts.bench.table import Row

RATIO_TARGET = 0.35
GROWTH_TARGET = 1.2
"""Of a bare route's requests a second, at least; of the latency with 100 sessions, at most."""

SIZES = (100, 1_000, 10_000)
SAMPLES = 600
"""Requests a round and size: enough for a p99."""

DUE = 10
IDLE_TIMEOUT = 900.0


def run(rounds: int = 5, seconds: int = 2) -> list[Row]:
    """Measure; rows of label, value and target."""
    with tempfile.TemporaryDirectory(prefix="bench-api-") as name:
        folder = Path(name)
        with running_redis(folder) as redis_url:
            rows = compare(SessionStore(connect(redis_url, 5.0)), folder, redis_url, rounds, seconds)
            growth, full = grow(folder, redis_url, rounds)
            return [*rows, *growth, sweep(full)]


def compare(store: SessionStore, folder: Path, redis_url: str, rounds: int, seconds: int) -> list[Row]:
    """Requests a second of the API and of the bare route, and their ratio."""
    path = f"/session/{fill(store, 1)[0]}"
    ours, bare = [], []
    with (
        running_gunicorn("app.main:create_app()", folder, redis_url) as api_port,
        running_gunicorn("scripts.bench.bare:create_app()", folder, redis_url) as bare_port,
    ):
        for port in (api_port, bare_port):
            throughput(port, path, 1)
        for _ in range(rounds):
            ours.append(throughput(api_port, path, seconds))
            bare.append(throughput(bare_port, path, seconds))
    ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, bare, strict=True))
    return [
        ("GET /session/{uuid} (requests/s)", f"{statistics.median(ours):.0f}", ""),
        ("bare Flask route (requests/s)", f"{statistics.median(bare):.0f}", ""),
        ("GET /session/{uuid} against the bare route", f"{ratio:.2f}x", f">= {RATIO_TARGET}x"),
    ]


def grow(folder: Path, redis_url: str, rounds: int) -> tuple[list[Row], SessionStore]:
    """Latency with 100, 1,000 and 10,000 sessions, each in a Redis database and behind a server of its own,
    asked in turns; gives the largest store too."""
    samples: dict[int, list[float]] = {size: [] for size in SIZES}
    paths: dict[int, list[str]] = {}
    with ExitStack() as stack:
        ports = {}
        for number, size in enumerate(SIZES):
            url = redis_url.removesuffix("0") + str(2 * number + 2)
            store = SessionStore(connect(url, 5.0))
            uuids = fill(store, size)
            paths[size] = [f"/session/{uuid}" for uuid in (uuids[:: max(1, size // SAMPLES)] * SAMPLES)[:SAMPLES]]
            ports[size] = stack.enter_context(running_gunicorn("app.main:create_app()", folder, url))
            latencies(ports[size], paths[size])
        for _ in range(rounds):
            for size in SIZES:
                samples[size] += latencies(ports[size], paths[size])
    rows = [
        (
            f"latency with {size:,} sessions, p50 / p99 (ms)",
            f"{percentile(samples[size], 50):.2f} / {percentile(samples[size], 99):.2f}",
            "",
        )
        for size in SIZES
    ]
    growth = [percentile(samples[SIZES[-1]], p) / percentile(samples[SIZES[0]], p) for p in (50, 99)]
    row = (
        "latency, 10,000 sessions against 100, p50 / p99",
        f"{growth[0]:.2f}x / {growth[1]:.2f}x",
        f"<= {GROWTH_TARGET}x",
    )
    return [*rows, row], store


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
        user = f"user{number}"
        created = Record(uuid=uuid, user_id=user, created_at=now, status=Status.CREATED, last_activity=now, epoch=1)
        store.create(created, quota=10_000)
        idle_at = now - 1 if number < due else now + IDLE_TIMEOUT
        store.change(uuid, now, to=Status.ACTIVE, settle=True, idle_at=idle_at, started_at=now, pod_name="local")
    return uuids
