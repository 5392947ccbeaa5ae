"""docs/metrics.md lists every metric of every process, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from app.agent.protocol import FAULTS, Failure
from app.api.instruments import ForwardAuthInstruments, WebInstruments
from app.api.metrics import Metrics, MetricsCollector
from app.core.costs.ledger import Totals
from app.core.redis.counters import (
    ACTION_BUCKETS,
    ANSWERED,
    COUNTED,
    FIRST_TOKEN,
    PROMPT_BUCKETS,
    START_BUCKETS,
    Histogram,
)
from app.core.redis.memory import Fill
from app.core.sessions.model import Status
from app.gateway.gateway_metrics import Metrics as GatewayMetrics
from tests.documents import table
from workers.lifecycle.action_counters import (
    DONE,
    FAILED,
    POINTS_BROKEN,
    POINTS_MADE,
    POINTS_STORED,
    POINTS_UNCHANGED,
    SESSION_FAILED,
    STARTED,
)
from workers.worker_metrics import BeatMetrics, ObserverMetrics, WorkerMetrics

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `(\w+)` \| (gauge|counter|histogram) \|(.*?)\| (.*?) \| .+ \|$", re.MULTILINE)

Shown = dict[str, tuple[str, tuple[str, ...], set[str]]]
"""By name: type, labels, and the processes that show it."""


def reading() -> Metrics:
    """One in which everything is there."""

    def histogram(bounds: tuple[float, ...]) -> Histogram:
        return Histogram((0,) * (len(bounds) + 1), 0.0, bounds)

    return Metrics(
        sessions={Status.ACTIVE: 1},
        archived=1,
        archiving=1,
        backlog={"wake": 0},
        workers=1,
        observer_age=0.0,
        counters={"dead_letters": 0},
        starts={("wake", "ready"): histogram(START_BUCKETS)},
        actions={("sleep", "total"): histogram(ACTION_BUCKETS)},
        failures={},
        failed_prompts={},
        model_up=True,
        prompts={name: histogram(PROMPT_BUCKETS) for name in (ANSWERED, FIRST_TOKEN)},
        oldest={"wake": 0.0},
        dead_letters_kept=0,
        backups=0,
        backups_oldest=0.0,
        points_overdue=0.0,
        points_waiting=0,
        points_oldest=0.0,
        drills_oldest=0.0,
        drills_late=0,
        costs=Totals({"compute": 0.0}, 0.0, 0),
        fill=Fill(1, 2),
        read_at=0.0,
    )


def collectors() -> Iterable[tuple[str, Collector]]:
    """What each process shows."""
    yield "web, Redis", MetricsCollector(reading())
    worker, beat, observer = CollectorRegistry(), CollectorRegistry(), CollectorRegistry()
    WorkerMetrics(worker)
    BeatMetrics(beat)
    ObserverMetrics(observer).leads()
    for process, registry in (
        ("web", WebInstruments().registry),
        ("forward-auth", ForwardAuthInstruments().registry),
        ("gateway", GatewayMetrics()._registry),
        ("worker", worker),
        ("beat", beat),
        ("observer", observer),
    ):
        for each in registry._collector_to_names:
            yield process, each


def in_the_code() -> Shown:
    found: Shown = {}
    for process, collector in collectors():
        for family in collector.collect():
            # A family tells its labels, an instrument that has counted nothing only by itself.
            labels = tuple(getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ()))
            name = family.name + ("_total" if family.type == "counter" else "")
            found.setdefault(name, (family.type, labels, set()))[2].add(process)
    return found


def in_the_docs() -> Shown:
    text = (ROOT / "docs/metrics.md").read_text()
    return {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), {shown} if "Redis" in shown else set(shown.split(", ")))
        for name, kind, labels, shown in ROW.findall(text)
    }


def test_each_metric_is_in_the_docs_with_its_type_labels_and_processes() -> None:
    assert in_the_docs() == in_the_code()


def test_each_counter_of_the_service_has_a_text() -> None:
    """Those in Redis exist by being counted somewhere: in place, or by the end of an action."""
    sources = [*(ROOT / "app").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
    counted = {name for file in sources for name in re.findall(r'counters\.count\("(\w+)"[,)]', file.read_text())}
    counted |= {STARTED, SESSION_FAILED, *DONE.values(), *FAILED.values()}
    counted |= {POINTS_MADE, POINTS_UNCHANGED, POINTS_STORED, POINTS_BROKEN}
    assert counted == COUNTED.keys()


def test_no_label_names_a_session_a_user_or_a_key() -> None:
    labels = {label for _, given, _ in in_the_code().values() for label in given}
    assert labels == {
        *("action", "decision", "endpoint", "kind", "method", "model", "outcome", "phase", "process", "queue"),
        *("reason", "status", "task", "tier"),
    }


def test_the_reasons_of_failed_prompts_are_all_there_and_say_which_are_faults() -> None:
    rows = table("metrics.md", "Why prompts fail")
    found = {name: row[-1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert found == {reason: "yes" if reason in FAULTS else "no" for reason in Failure}
