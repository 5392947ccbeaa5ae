"""The service's metrics: one reading of Redis, as JSON or in Prometheus' formats."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app.core.composition import Core
from app.core.redis.counters import START_BUCKETS, Histogram
from app.core.redis.memory import Fill
from app.core.redis.task_queue import QUEUES
from app.core.sessions.model import Status, iso

TEXT_TYPES = ("text/plain", "application/openmetrics-text")
UNSAFE = re.compile(r"[^a-zA-Z0-9_]")


@dataclass(frozen=True)
class Figures:
    """One reading: `sessions` by state, `counters` that only grow, `starts` by kind and phase."""

    sessions: dict[Status, int]
    backlog: dict[str, int]
    workers: int
    observer_age: float | None
    counters: dict[str, int]
    starts: dict[tuple[str, str], Histogram]
    backups: int
    fill: Fill
    read_at: float

    def to_json(self) -> dict[str, object]:
        """The answer of /metrics. `total_sessions` leaves out terminated sessions."""
        living = sum(count for status, count in self.sessions.items() if status is not Status.TERMINATED)
        return {
            "total_sessions": living,
            **{f"{status}_sessions": count for status, count in self.sessions.items()},
            "dead_letters": self.counters.get("dead_letters", 0),
            "queue_backlog": self.backlog,
            "workers": self.workers,
            "observer_age_seconds": self.observer_age,
            "watcher_age_seconds": self.observer_age,
            "backups": self.backups,
            "redis_used_bytes": self.fill.used,
            "redis_max_bytes": self.fill.limit,
            "counters": self.counters,
            "timestamp": iso(self.read_at),
        }


def read_figures(service: Core, now: float) -> Figures:
    """Read all metrics; raises `StateUnavailable`."""
    return Figures(
        sessions=service.store.counts(),
        backlog=service.counters.backlog(QUEUES),
        workers=service.heartbeats.workers(now),
        observer_age=service.heartbeats.observer_age(now),
        counters=service.counters.read(),
        starts=service.counters.starts(),
        backups=service.backups.count(),
        fill=service.memory.read(),
        read_at=now,
    )


class FiguresCollector(Collector):
    """Shows one reading to prometheus-client."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        figures = self._figures
        sessions = GaugeMetricFamily("sessions", "Sessions by state", labels=["status"])
        for status, count in figures.sessions.items():
            sessions.add_metric([status], count)
        yield sessions
        backlog = GaugeMetricFamily("sessions_queue_tasks", "Tasks waiting, by queue", labels=["queue"])
        for queue, waiting in figures.backlog.items():
            backlog.add_metric([queue], waiting)
        yield backlog
        yield GaugeMetricFamily("sessions_workers", "Workers with a recent heartbeat", value=figures.workers)
        yield GaugeMetricFamily("sessions_backups", "Backups that exist", value=figures.backups)
        used, limit = figures.fill.used, figures.fill.limit
        yield GaugeMetricFamily("sessions_redis_used_bytes", "Memory that Redis uses", value=used)
        if limit:
            yield GaugeMetricFamily("sessions_redis_max_bytes", "Memory that Redis may use", value=limit)
        if figures.observer_age is not None:
            new, old = "Since the observer last reported", "Deprecated: use sessions_observer_age_seconds"
            yield GaugeMetricFamily("sessions_observer_age_seconds", new, value=figures.observer_age)
            yield GaugeMetricFamily("sessions_watcher_age_seconds", old, value=figures.observer_age)
        dead = figures.counters.get("dead_letters", 0)
        yield CounterMetricFamily("sessions_dead_letters", "Tasks that failed for good", value=dead)
        starts = HistogramMetricFamily(
            "sessions_start_seconds", "From the request to the end of a phase of the start", labels=["kind", "phase"]
        )
        for (kind, phase), histogram in figures.starts.items():
            starts.add_metric([kind, phase], cumulative(histogram), histogram.total)
        yield starts
        for name, count in sorted(figures.counters.items()):
            if name != "dead_letters":
                safe = UNSAFE.sub("_", name)
                yield CounterMetricFamily(f"sessions_{safe}", f"Counted by the service: {name}", value=count)


def cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    """The buckets in Prometheus' format: each includes those below it."""
    bounds = [*map(floatToGoString, START_BUCKETS), "+Inf"]
    return list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))


def wants_text(accept: str) -> bool:
    """Whether an `Accept` header asks for one of Prometheus' formats."""
    return any(kind in accept for kind in TEXT_TYPES)


def prometheus_text(figures: Figures, accept: str) -> tuple[bytes, str]:
    """The exposition and its content type, in the format `accept` prefers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FiguresCollector(figures))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
