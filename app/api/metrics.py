"""The service's metrics: one reading of Redis, as JSON or in Prometheus' formats."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app.agent.protocol import Failure
from app.api.instruments import WebInstruments
from app.core.composition import Core
from app.core.costs.ledger import Totals
from app.core.operations.verdicts import State, of_model
from app.core.redis import keys
from app.core.redis.counters import ANSWERED, COUNTED, FIRST_TOKEN, Histogram
from app.core.redis.memory import Fill
from app.core.redis.task_queue import QUEUES
from app.core.restore_points.drilling import LATE
from app.core.sessions.model import Status, Tier
from app.process.shared_metrics import exposition, shown

TEXT_TYPES = ("text/plain", "application/openmetrics-text")

ACTIONS = ("create", "wake", "restore", "rollback", "sleep", "archive", "backup", "point", "drill", "delete")
UNSAFE = re.compile(r"[^a-zA-Z0-9_]")


@dataclass(frozen=True)
class Metrics:
    """One reading: `sessions` by state, `counters` that only grow, `starts` by kind and phase, `actions` by action and
    phase, `failures` by action, `prompts` by what was measured, `failed_prompts` by why. `oldest` is in s, by queue.
    `model_up` is None while nobody knows."""

    sessions: dict[Status, int]
    archived: int
    archiving: int
    backlog: dict[str, int]
    workers: int
    observer_age: float | None
    counters: dict[str, int]
    starts: dict[tuple[str, str], Histogram]
    actions: dict[tuple[str, str], Histogram]
    failures: dict[str, int]
    prompts: dict[str, Histogram]
    failed_prompts: dict[str, int]
    model_up: bool | None
    oldest: dict[str, float]
    dead_letters_kept: int
    backups: int
    backups_oldest: float
    points_waiting: int
    points_oldest: float
    points_overdue: float
    drills_oldest: float
    drills_late: int
    fill: Fill
    costs: Totals
    read_at: float

    @property
    def living(self) -> int:
        """Sessions that are not terminated."""
        return sum(count for status, count in self.sessions.items() if status is not Status.TERMINATED)

    @property
    def dead_letters(self) -> int:
        """Tasks that failed for good."""
        return self.counters.get("dead_letters", 0)


def read_metrics(service: Core, now: float) -> Metrics:
    """Read all metrics; raises `StateUnavailable`."""
    actions, failures = service.counters.actions()
    prompts, failed_prompts = service.counters.prompts()
    return Metrics(
        actions=actions,
        failures=failures,
        prompts=prompts,
        failed_prompts=failed_prompts,
        model_up=_model_up(service, now),
        oldest=service.counters.oldest(QUEUES, now),
        dead_letters_kept=service.dead_letters.count(),
        sessions=service.store.counts(),
        archived=service.store.size(keys.ARCHIVED),
        archiving=service.store.size(keys.ARCHIVING),
        backlog=service.counters.backlog(QUEUES),
        workers=service.heartbeats.workers(now),
        observer_age=service.heartbeats.observer_age(now),
        counters=service.counters.read(),
        starts=service.counters.starts(),
        backups=service.backups.count(),
        backups_oldest=service.store.oldest_backup_request(now),
        points_waiting=service.store.size(keys.POINTS_WAITING),
        points_oldest=service.store.oldest(keys.POINTS_WAITING, now),
        points_overdue=service.store.oldest(keys.POINTS_DUE, now),
        drills_oldest=service.store.oldest(keys.DRILLS, now),
        drills_late=_late_drills(service, now),
        fill=service.memory.read(),
        costs=service.ledger.totals(now),
        read_at=now,
    )


def _late_drills(service: Core, now: float) -> int:
    """Sessions whose restore points no drill has proven for too long."""
    cycle = service.settings.drill_cycle
    return service.store.overdue(keys.DRILLS, now - LATE * cycle) if cycle else 0


def _model_up(service: Core, now: float) -> bool | None:
    """Whether the model's API answers, as the diagnosis judges its last answer; None while nobody knows."""
    judged = of_model(True, service.model_answers.last(now)).status
    return None if judged is State.UNKNOWN else judged is not State.FAILED


class MetricsCollector(Collector):
    """Shows one reading to prometheus-client."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        metrics = self._metrics
        sessions = GaugeMetricFamily("sessions", "Sessions by state", labels=["status"])
        for status, count in metrics.sessions.items():
            sessions.add_metric([status], count)
        yield sessions
        tiers = GaugeMetricFamily("sessions_tier", "Sessions by where their files are", labels=["tier"])
        tiers.add_metric([Tier.HOT], max(0, metrics.living - metrics.archived))
        tiers.add_metric([Tier.ARCHIVED], metrics.archived)
        yield tiers
        yield GaugeMetricFamily("sessions_archiving", "Sessions that are being archived", value=metrics.archiving)
        backlog = GaugeMetricFamily("sessions_queue_tasks", "Tasks waiting, by queue", labels=["queue"])
        for queue, waiting in metrics.backlog.items():
            backlog.add_metric([queue], waiting)
        yield backlog
        oldest = GaugeMetricFamily("sessions_queue_oldest_seconds", "Age of the oldest waiting task", labels=["queue"])
        for queue, age in metrics.oldest.items():
            oldest.add_metric([queue], age)
        yield oldest
        yield GaugeMetricFamily("sessions_workers", "Workers with a recent heartbeat", value=metrics.workers)
        yield GaugeMetricFamily("sessions_backups", "Backups that exist", value=metrics.backups)
        asked = "How long the requested backup that waits longest has waited"
        yield GaugeMetricFamily("sessions_backups_oldest_seconds", asked, value=metrics.backups_oldest)
        yield GaugeMetricFamily(
            "sessions_points_waiting", "Sessions that wait for a restore point", value=metrics.points_waiting
        )
        late = "How long the session that waits longest has waited for its restore point"
        yield GaugeMetricFamily("sessions_points_oldest_seconds", late, value=metrics.points_oldest)
        unseen = "By how much the look whether a restore point is due is overdue"
        yield GaugeMetricFamily("sessions_points_overdue_seconds", unseen, value=metrics.points_overdue)
        proof = "How long ago the restore points of the session that waits longest for a drill were proven"
        yield GaugeMetricFamily("sessions_drills_oldest_seconds", proof, value=metrics.drills_oldest)
        overdue = "Sessions whose restore points were not proven for two cycles"
        yield GaugeMetricFamily("sessions_drills_late", overdue, value=metrics.drills_late)
        used, limit = metrics.fill.used, metrics.fill.limit
        yield GaugeMetricFamily("sessions_redis_used_bytes", "Memory that Redis uses", value=used)
        if limit:
            yield GaugeMetricFamily("sessions_redis_max_bytes", "Memory that Redis may use", value=limit)
        if metrics.observer_age is not None:
            silence = "Since the observer last reported"
            yield GaugeMetricFamily("sessions_observer_age_seconds", silence, value=metrics.observer_age)
        yield CounterMetricFamily("sessions_dead_letters", "Tasks that failed for good", value=metrics.dead_letters)
        kept = "Dead letters that wait for an operator"
        yield GaugeMetricFamily("sessions_dead_letters_kept", kept, value=metrics.dead_letters_kept)
        starts = HistogramMetricFamily(
            "sessions_start_seconds", "From the request to the end of a phase of the start", labels=["kind", "phase"]
        )
        for (kind, phase), histogram in metrics.starts.items():
            starts.add_metric([kind, phase], cumulative(histogram), histogram.total)
        yield starts
        yield from self._actions()
        yield from self._prompts()
        yield from self._costs()
        yield from self._counters()

    def _costs(self) -> Iterable[Metric]:
        totals = self._metrics.costs
        costs = CounterMetricFamily("sessions_cost_dollars", "What all sessions cost", labels=["kind"])
        for kind, dollars in totals.dollars.items():
            costs.add_metric([kind], dollars)
        yield costs
        saved = "What processes that always ran would have cost besides"
        yield CounterMetricFamily("sessions_saved_dollars", saved, value=totals.saved)
        refused = "Calls refused for a budget"
        yield CounterMetricFamily("sessions_budget_refusals", refused, value=totals.refusals)

    def _counters(self) -> Iterable[Metric]:
        counted = {**dict.fromkeys(COUNTED, 0), **self._metrics.counters}
        for name, count in sorted(counted.items()):
            if name != "dead_letters":
                safe = UNSAFE.sub("_", name)
                text = COUNTED.get(name, f"Counted by the service: {name}")
                yield CounterMetricFamily(f"sessions_{safe.removeprefix('sessions_')}", text, value=count)

    def _actions(self) -> Iterable[Metric]:
        durations = HistogramMetricFamily(
            "sessions_action_seconds",
            "From the request to the end of a phase of the action",
            labels=["action", "phase"],
        )
        for (action, phase), histogram in self._metrics.actions.items():
            durations.add_metric([action, phase], cumulative(histogram), histogram.total)
        yield durations
        failures = CounterMetricFamily("sessions_action_failures", "Actions that failed", labels=["action"])
        for action in ACTIONS:
            failures.add_metric([action], self._metrics.failures.get(action, 0))
        yield failures

    def _prompts(self) -> Iterable[Metric]:
        for name, measured, text in (
            ("sessions_prompt_seconds", ANSWERED, "From a prompt's arrival to its answer"),
            ("sessions_prompt_first_token_seconds", FIRST_TOKEN, "From a prompt's arrival to its answer's first token"),
        ):
            family = HistogramMetricFamily(name, text)
            histogram = self._metrics.prompts[measured]
            family.add_metric([], cumulative(histogram), histogram.total)
            yield family
        failed = CounterMetricFamily("sessions_prompts_failed", "Prompts that failed", labels=["reason"])
        for reason in Failure:
            failed.add_metric([reason], self._metrics.failed_prompts.get(reason, 0))
        yield failed
        if self._metrics.model_up is not None:
            text = "Whether the model's API answered the gateway's last question"
            yield GaugeMetricFamily("sessions_model_up", text, value=self._metrics.model_up)


def cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    """The buckets in Prometheus' format: each includes those below it."""
    bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
    return list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))


def wants_text(accept: str) -> bool:
    """Whether an `Accept` header asks for one of Prometheus' formats."""
    return any(kind in accept for kind in TEXT_TYPES)


def prometheus_text(metrics: Metrics, instruments: WebInstruments, accept: str) -> tuple[bytes, str]:
    """The exposition and its content type, in the format `accept` prefers: the reading, and what the processes of this
    web server counted."""
    instruments.http.count()
    return exposition(shown(instruments.registry, MetricsCollector(metrics)), accept)
