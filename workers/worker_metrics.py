"""What a worker, beat and the observer count, by Celery's signals and the observer's own calls.

A pool's processes run tasks, and count what they ran; its main process serves the sums, and counts tasks whose process
was killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from billiard.process import current_process
from celery import signals
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.core.redis.task_queue import ENQUEUED_AT, ROUTES
from app.process import scrape, shared_metrics
from app.process.settings import Settings

TASK_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""s: from a sweep that finds nothing to the longest backup."""

WAIT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)
"""s: a free worker begins a task after some 3 ms."""

POOL = 16
"""Processes of a pool for whose metrics space is reserved; the Procfile's largest pool has three."""

KINDS = ("snapshot", "ready", "progress", "down", "failed")
"""What the observer observes: all workspaces at once, or one."""

DONE, DEFERRED, FAILED = "done", "deferred", "failed"

_begun: ContextVar[float | None] = ContextVar("begun", default=None)
"""When the task of this thread began, by the monotonic clock."""

_outcome: ContextVar[str] = ContextVar("outcome", default=DONE)


class WorkerMetrics:
    """The instruments of a process that works on tasks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tasks = Counter("worker_tasks", "Tasks that ended", ["task", "outcome"], registry=registry)
        self._seconds = Histogram(
            "worker_task_seconds", "From a task's begin to its end", ["task"], buckets=TASK_BUCKETS, registry=registry
        )
        self._waits = Histogram(
            "worker_task_wait_seconds",
            "From a task's message to its begin",
            ["queue"],
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self._tries = Counter("worker_task_tries", "Attempts that were counted", ["task"], registry=registry)

    def expect(self, queues: Container[str]) -> None:
        """Show zeros for the tasks of these queues: a rate needs a value from before the first failure."""
        for task, queue in ROUTES.items():
            if queue in queues:
                for outcome in (DONE, DEFERRED, FAILED):
                    self._tasks.labels(task, outcome)
                self._seconds.labels(task)
                self._tries.labels(task)
                self._waits.labels(queue)

    def begun(self, task: str, waited: float | None) -> None:
        """A task began; `waited` (s) is None if its message does not say since when."""
        if waited is not None:
            self._waits.labels(ROUTES[task]).observe(max(0.0, waited))

    def ended(self, task: str, outcome: str, seconds: float | None) -> None:
        """A task ended; `seconds` is None if its process was killed."""
        self._tasks.labels(task, outcome).inc()
        if seconds is not None:
            self._seconds.labels(task).observe(seconds)

    def tried(self, task: str) -> None:
        """An attempt was counted in a session's record."""
        self._tries.labels(task).inc()


class BeatMetrics:
    """The instruments of beat."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sent = Counter("beat_sent", "Tasks that beat enqueued", ["task"], registry=registry)
        self._last = Gauge("beat_last_sent_timestamp_seconds", "When beat last enqueued a task", registry=registry)

    def sent(self, task: str, now: float) -> None:
        """Beat enqueued a task."""
        self._sent.labels(task).inc()
        self._last.set(now)


class ObserverMetrics(Collector):
    """The instruments of the observer. `ticks` is a monotonic clock. Only the observer that leads shows a lag."""

    def __init__(self, registry: CollectorRegistry, ticks: Callable[[], float] = time.monotonic) -> None:
        self._events = Counter("observer_events", "Observations that were applied", ["kind"], registry=registry)
        for kind in KINDS:
            self._events.labels(kind)
        self._ticks = ticks
        self._complete: float | None = None
        registry.register(self)

    def seen(self, kind: str) -> None:
        """Count an observation."""
        self._events.labels(kind).inc()

    def leads(self) -> None:
        """It leads: until its first complete view the lag counts from when it began to, through failed watches too."""
        if self._complete is None:
            self._complete = self._ticks()

    def stands_by(self) -> None:
        """It leads no more."""
        self._complete = None

    def up_to_date(self) -> None:
        """All that the runtime reported until now is applied."""
        self._complete = self._ticks()

    def describe(self) -> Iterable[Metric]:
        """None, since what is shown depends on who leads."""
        return ()

    def collect(self) -> Iterable[Metric]:
        complete = self._complete
        if complete is not None:
            lag = max(0.0, self._ticks() - complete)
            yield GaugeMetricFamily("observer_lag_seconds", "Since the last complete view of the runtime", value=lag)


@lru_cache(maxsize=1)
def registry() -> CollectorRegistry:
    """The registry of this process."""
    return CollectorRegistry(auto_describe=False)


@lru_cache(maxsize=1)
def worker_figures() -> WorkerMetrics:
    """Those of this process, made when the first is needed: after a worker's main process said where they count."""
    return WorkerMetrics(registry())


def deferred() -> None:
    """The running task leaves its work to a later one."""
    _outcome.set(DEFERRED)


def serve(settings: Settings) -> None:
    """Serve this program's metrics at METRICS_PORT, if that is set."""
    scrape.serve(settings, shared_metrics.shown(registry()))


def register(settings: Settings) -> None:
    """Connect to Celery's signals; they fire in the processes that they are about."""

    def worker_begins(**_: Any) -> None:
        shared_metrics.begin(settings.prometheus_multiproc_dir, POOL)

    def process_begins(**_: Any) -> None:
        shared_metrics.enter(current_process().index)

    def beat_begins(**_: Any) -> None:
        figures = BeatMetrics(registry())

        def sent(sender: str, **_: Any) -> None:
            figures.sent(sender, time.time())

        signals.after_task_publish.connect(sent, weak=False)
        serve(settings)

    def worker_ready(sender: Any, **_: Any) -> None:
        worker_figures().expect(sender.app.amqp.queues.consume_from)
        serve(settings)

    for signal, receiver in (
        (signals.celeryd_init, worker_begins),
        (signals.worker_process_init, process_begins),
        (signals.worker_ready, worker_ready),
        (signals.beat_init, beat_begins),
        (signals.before_task_publish, _say_when),
        (signals.task_prerun, _begin),
        (signals.task_postrun, _end),
        (signals.task_failure, _note_killed),
    ):
        signal.connect(receiver, weak=False)


def _say_when(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Put the time into a message of beat; the queue's own have it already (app/core/redis/task_queue.py)."""
    if headers is not None:
        headers.setdefault(ENQUEUED_AT, round(time.time(), 3))


def _begin(task: Any = None, **_: Any) -> None:
    _begun.set(time.monotonic())
    _outcome.set(DONE)
    if task.name in ROUTES:
        sent = task.request.get(ENQUEUED_AT)
        worker_figures().begun(task.name, time.time() - sent if isinstance(sent, int | float) else None)


def _end(task: Any = None, state: str | None = None, **_: Any) -> None:
    began = _begun.get()
    _begun.set(None)
    if task.name in ROUTES and began is not None:
        outcome = _outcome.get() if state == "SUCCESS" else FAILED
        worker_figures().ended(task.name, outcome, time.monotonic() - began)


def _note_killed(sender: Any = None, **_: Any) -> None:
    """Count a task whose process was killed. Where a task runs its failure comes between its begin and its end."""
    if sender is not None and sender.name in ROUTES and _begun.get() is None:
        worker_figures().ended(sender.name, FAILED, None)
