"""What workers, beat and the observer count, and what outcomes add to the service's histograms."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from app.core.errors import PermanentError
from app.core.redis import task_queue
from app.core.redis.task_queue import ENQUEUED_AT
from tests.world import World
from workers import worker_metrics
from workers.observer import Observer, kind_of
from workers.worker_metrics import BeatMetrics, ObserverMetrics, WorkerMetrics


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[CollectorRegistry]:
    """That of the figures of this process, made anew."""
    made = CollectorRegistry()
    figures = WorkerMetrics(made)
    monkeypatch.setattr(worker_metrics, "worker_figures", lambda: figures)
    yield made
    worker_metrics._begun.set(None)


def task(**request: Any) -> Any:
    return SimpleNamespace(name=task_queue.WAKE, request=request)


def ended(registry: CollectorRegistry, outcome: str) -> float | None:
    return registry.get_sample_value("worker_tasks_total", {"task": task_queue.WAKE, "outcome": outcome})


def test_a_task_is_counted_by_its_outcome(registry: CollectorRegistry) -> None:
    for state, defers in (("SUCCESS", False), ("SUCCESS", True), ("FAILURE", False), ("SUCCESS", False)):
        worker_metrics._begin(task=task())
        if defers:
            worker_metrics.deferred()
        if state == "FAILURE":
            worker_metrics._note_killed(sender=task())
        worker_metrics._end(task=task(), state=state)
    assert [ended(registry, outcome) for outcome in ("done", "deferred", "failed")] == [2, 1, 1]
    assert registry.get_sample_value("worker_task_seconds_count", {"task": task_queue.WAKE}) == 4


def test_a_task_whose_process_was_killed_has_failed(registry: CollectorRegistry) -> None:
    """The main process is told, which runs none itself."""
    worker_metrics._note_killed(sender=task())
    assert ended(registry, "failed") == 1
    assert registry.get_sample_value("worker_task_seconds_count", {"task": task_queue.WAKE}) is None


def test_how_long_a_task_waited_is_counted_by_queue(registry: CollectorRegistry) -> None:
    for request in ({ENQUEUED_AT: time.time() - 7}, {}, {ENQUEUED_AT: "nonsense"}):
        worker_metrics._begin(task=task(**request))
    assert registry.get_sample_value("worker_task_wait_seconds_count", {"queue": "wake"}) == 1
    seconds = registry.get_sample_value("worker_task_wait_seconds_sum", {"queue": "wake"})
    assert seconds is not None and 7 <= seconds < 60


def test_the_tasks_of_a_workers_queues_are_shown_before_the_first(registry: CollectorRegistry) -> None:
    """A rate needs a value from before the first failure."""
    worker_metrics.worker_figures().expect({"wake": object()})
    assert ended(registry, "failed") == 0
    labels = {"task": task_queue.SLEEP, "outcome": "failed"}
    assert registry.get_sample_value("worker_tasks_total", labels) is None


def test_tasks_of_others_are_not_counted(registry: CollectorRegistry) -> None:
    other = SimpleNamespace(name="celery.backend_cleanup", request={})
    worker_metrics._begin(task=other)
    worker_metrics._end(task=other, state="SUCCESS")
    worker_metrics._note_killed(sender=other)
    assert not [each for family in registry.collect() for each in family.samples if each.value]


def test_attempts_are_counted_by_task(world: World, registry: CollectorRegistry) -> None:
    uuid = world.active()
    world.sessions.request_backup(uuid)
    world.lifecycle.back_up(uuid)
    tries = {
        name: registry.get_sample_value("worker_task_tries_total", {"task": name})
        for name in (task_queue.PROVISION, task_queue.BACKUP)
    }
    assert tries == {task_queue.PROVISION: 1, task_queue.BACKUP: 1}


def test_beat_counts_what_it_sends() -> None:
    registry = CollectorRegistry()
    BeatMetrics(registry).sent(task_queue.SWEEP_IDLE, 123.0)
    assert registry.get_sample_value("beat_sent_total", {"task": task_queue.SWEEP_IDLE}) == 1
    assert registry.get_sample_value("beat_last_sent_timestamp_seconds") == 123.0


def test_the_lag_of_the_observer_counts_from_its_last_complete_view() -> None:
    now = 100.0
    registry = CollectorRegistry()
    figures = ObserverMetrics(registry, ticks=lambda: now)

    def lag() -> float | None:
        return registry.get_sample_value("observer_lag_seconds")

    assert lag() is None, "who stands by has no view"
    figures.leads()
    now += 5
    assert lag() == 5
    figures.up_to_date()
    now += 1
    figures.leads()
    assert lag() == 1, "a watch that failed and began again is still behind"
    figures.stands_by()
    assert lag() is None


def test_the_observer_counts_what_it_applies(world: World) -> None:
    uuid = world.active()
    registry = CollectorRegistry()
    observer = Observer(world.core, world.runtime, world.clock, figures=ObserverMetrics(registry))
    seen = world.runtime.observe(uuid)
    assert seen is not None
    kinds = {
        "ready": seen,
        "progress": replace(seen, ready=False),
        "down": replace(seen, ready=False, running=False),
        "failed": replace(seen, failure="it died"),
    }
    for kind, each in kinds.items():
        assert kind_of(each) == kind
        observer.apply(each)
        assert registry.get_sample_value("observer_events_total", {"kind": kind}) == 1


def test_sleeps_backups_and_deletions_are_timed_by_phase(world: World) -> None:
    uuid = world.active()
    world.sessions.sleep(uuid)
    world.now += 0.3
    world.work()
    world.sessions.delete(uuid)
    world.now += 2.0
    world.work()
    durations, failures = world.core.counters.actions()
    assert {action: {phase for name, phase in durations if name == action} for action, _ in durations} == {
        "sleep": {"enqueued", "agent_shut_down", "stopped", "total"},
        "backup": {"verified", "total"},
        "delete": {"enqueued", "stopped", "backed_up", "removed", "total"},
    }
    assert (durations["sleep", "total"].total, durations["delete", "total"].total) == (0.3, 2.0)
    assert failures == {}


def test_failures_are_counted_by_action(world: World) -> None:
    uuid = world.asleep()
    world.runtime.errors["start"] = PermanentError("no such image")
    world.sessions.wake(uuid)
    world.work()
    assert world.core.counters.actions()[1] == {"wake": 1}
