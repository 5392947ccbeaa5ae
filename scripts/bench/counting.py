"""What it costs to count requests: the API with its metrics, in shared files, and without, in rounds that alternate."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flask import Flask

from app import main
from app.api.instruments import INSTRUMENTS
from app.core.redis.connections import connect
from app.core.sessions.store import SessionStore
from app.metrics import shared
from app.settings import Settings
from scripts.bench import uncounted
from scripts.bench.api import fill
from scripts.bench.servers import HEADERS, KEY, running_gunicorn, running_redis, throughput
from scripts.bench.table import Row
from scripts.lib.serve import IN_MEMORY

RATIO_TARGET = 0.97
"""Of the requests a second without metrics, at least."""

BATCHES, BATCH, COUNTED = 600, 5, 2_000
"""Many and small, as what else runs on the machine comes and goes."""


def run(rounds: int = 15, seconds: float = 1.0) -> list[Row]:
    """Measure; rows of label, value and target."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-counting-") as name,
        tempfile.TemporaryDirectory(prefix="bench-counting-", dir=IN_MEMORY) as counts,
        running_redis(Path(name)) as redis_url,
    ):
        store = SessionStore(connect(redis_url, 5.0))
        rows = compare(store, Path(name), Path(counts), redis_url, rounds, seconds)
        return [*rows, *calls(store, Path(name), Path(counts, "calls"), redis_url)]


def compare(store: SessionStore, folder: Path, counts: Path, redis_url: str, rounds: int, seconds: float) -> list[Row]:
    """Requests a second with and without metrics, and the ratio of the medians. The order changes with each round, as
    the second of two may find a warmer machine."""
    path = f"/session/{fill(store, 1)[0]}"
    measured: dict[int, list[float]] = {}
    with (
        running_gunicorn(
            "app.main:create_app()", folder, redis_url, PROMETHEUS_MULTIPROC_DIR=str(counts / "web")
        ) as counting,
        running_gunicorn("scripts.bench.uncounted:create_app()", folder, redis_url) as uncounted,
    ):
        for port in (counting, uncounted):
            throughput(port, path, 1.0)
            measured[port] = []
        for number in range(rounds):
            for port in (counting, uncounted) if number % 2 else (uncounted, counting):
                measured[port].append(throughput(port, path, seconds))
    ours, bare = (statistics.median(measured[port]) for port in (counting, uncounted))
    return [
        ("GET /session/{uuid} with metrics (requests/s)", f"{ours:.0f}", ""),
        ("without (requests/s)", f"{bare:.0f}", ""),
        ("with metrics against without", f"{ours / bare:.3f}x", f">= {RATIO_TARGET}x"),
    ]


def calls(store: SessionStore, folder: Path, counts: Path, redis_url: str) -> list[Row]:
    """CPU time of the application for a call, without a server around it, and of counting alone: what the rest of the
    machine does moves these less. Without the server's share the ratio is worse than for a caller."""
    settings = Settings(
        data_dir=folder, redis_url=redis_url, api_key=KEY, rate_limit_default="1000000000/minute", log_level="WARNING"
    )
    path = f"/session/{fill(store, 1)[0]}"
    shared.begin(str(counts), 2)
    try:
        apps = [main.create_app(settings), uncounted.create_app(settings)]
        batches: list[list[float]] = [[], []]
        for number in range(BATCHES):
            for which in (0, 1) if number % 2 else (1, 0):
                client = apps[which].test_client()
                started = time.process_time()
                for _ in range(BATCH):
                    if client.get(path, headers=HEADERS).status_code != 200:
                        raise RuntimeError("the call failed")
                batches[which].append((time.process_time() - started) / BATCH)
        counting = in_place(apps[0], path)
    finally:
        shared.end()
    ours, bare = map(statistics.median, batches)
    return [
        ("CPU of the application for a call, with / without (µs)", f"{1e6 * ours:.0f} / {1e6 * bare:.0f}", ""),
        ("the same without metrics against with", f"{bare / ours:.3f}x", f">= {RATIO_TARGET}x"),
        ("CPU to count a request, beside its work (µs)", f"{1e6 * counting:.1f}", ""),
        ("of the call", f"{counting / ours:.1%}", f"<= {1 - RATIO_TARGET:.0%}"),
    ]


def in_place(app: Flask, path: str) -> float:
    """CPU seconds to count a request, beside its work, by whichever thread. Alone, with warm caches, it takes less."""
    metrics = app.extensions[INSTRUMENTS].http
    spent: list[float] = []

    def timed(work: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: object) -> None:
            started = time.thread_time()
            work(*arguments)
            spent.append(time.thread_time() - started)

        return run

    metrics.answered, metrics.count = timed(metrics.answered), timed(metrics.count)
    client = app.test_client()
    for _ in range(COUNTED):
        client.get(path, headers=HEADERS)
    metrics.count()
    return sum(spent) / COUNTED
