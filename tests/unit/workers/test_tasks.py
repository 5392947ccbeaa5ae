"""The names the API enqueues by, and what the workers registered under them."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import redis
from celery import signals
from celery.exceptions import Retry

from app.core import composition
from app.core.errors import AgentUnavailable
from app.core.redis import task_queue
from app.process.settings import SettingsError
from tests.fakes import raising
from workers import context, tasks
from workers.celery import app as celery_app
from workers.celery.app import NotSweeps, app, settings
from workers.celery.base_task import TaskFailed

A = "aaaa0001"
OWN = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}


def test_every_declared_task_has_a_function_and_every_queue_has_tasks() -> None:
    assert set(OWN) == set(task_queue.TASKS)
    assert set(task_queue.ROUTES.values()) == set(task_queue.QUEUES) == {q.name for q in app.conf.task_queues}


def test_a_function_without_a_declaration_is_refused() -> None:
    with pytest.raises(KeyError, match="sessions.unknown"):
        tasks.task("sessions.unknown")(lambda: None)


def test_beat_sends_each_sweep_in_its_interval_and_lets_it_expire() -> None:
    """A sweep that nobody took is replaced by the next, it doesn't pile up."""
    often = ("idle", "expired", "stale", "points")
    intervals = {name: entry["schedule"].seconds for name, entry in app.conf.beat_schedule.items()}
    expected = {
        **{f"sweeps.{each}": task_queue.SWEEP_INTERVAL for each in often},
        "sweeps.drills": 300.0,
        "sweeps.reconcile": settings.reconcile_interval,
        "sweeps.index": settings.reconcile_interval,
        "sweeps.retention": settings.retention_interval,
    }
    assert intervals == expected
    for entry in app.conf.beat_schedule.values():
        assert entry["task"] in OWN
        assert entry["options"]["expires"] >= entry["schedule"].seconds


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_task_survives_its_worker_and_ends_in_its_limit_before_redis_hands_it_out_again(name: str) -> None:
    task, declared = OWN[name], task_queue.TASKS[name]
    limit = settings.long_task_limit if declared.long else task_queue.SHORT_TASK_LIMIT
    assert (task.time_limit, task.send_events) == (limit, declared.events)
    assert app.conf.task_acks_late and task.acks_late is not False
    assert app.conf.task_reject_on_worker_lost
    assert task.soft_time_limit < task.time_limit < task_queue.visibility_timeout(settings)
    assert app.conf.broker_transport_options["visibility_timeout"] == task_queue.visibility_timeout(settings)


@pytest.mark.parametrize("limit", [1.0, 3_600.0, 50_000.0])
def test_redis_hands_nothing_out_again_within_a_tasks_limit(limit: float) -> None:
    """Whatever the limit of long tasks is."""
    assert task_queue.visibility_timeout(replace(settings, long_task_limit=limit)) > max(
        limit, task_queue.SHORT_TASK_LIMIT
    )


@pytest.mark.parametrize("name", sorted(name for name, of in task_queue.ROUTES.items() if of == "deliver"))
def test_what_delivery_workers_do_takes_nothing_but_redis(
    name: str, redis_server: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster they may not ask it for anything, and so have no runtime at all."""
    monkeypatch.setenv("REDIS_URL", redis_server)
    monkeypatch.setattr(context.runtimes, "load", raising(AssertionError("a delivery worker has no access to it")))
    redis_client.hset(f"session:{A}", mapping={"uuid": A, "user_id": "ada", "status": "active", "created_at": "1"})
    redis_client.hset(f"agent:{A}", mapping={"address": "http://127.0.0.1:9"})
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    with contextlib.ExitStack() as afterwards:
        for cached in (context.core, context.context):
            cached.cache_clear()
            afterwards.callback(cached.cache_clear)
        with contextlib.suppress(AgentUnavailable, Retry):  # Nobody listens there.
            OWN[name](*([] if name == task_queue.CHECK_POLICIES else [A]))
        assert (context.core.cache_info().currsize, context.context.cache_info().currsize) == (1, 0)


def test_what_a_user_waits_for_never_queues_behind_a_backup() -> None:
    assert {task_queue.ROUTES[task_queue.PROVISION], task_queue.ROUTES[task_queue.WAKE]} == {"wake"}
    to_agents = {task for task, name in task_queue.ROUTES.items() if name == "deliver"}
    short = {task_queue.CHECK_POLICIES, task_queue.TOKEN_ENDED}
    asking = {task_queue.DELIVER, task_queue.WARN, task_queue.DISCONNECT, task_queue.TELL_FILES}
    assert to_agents == asking | short, "an agent may hang"
    assert {task.queue for task in task_queue.TASKS.values() if task.long} == {"backup"}


class FakeWorker:
    """As far as the check looks at Celery's."""

    def __init__(self, queues: list[str]) -> None:
        self.app = SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=queues)))


@pytest.mark.parametrize(("queues", "asked"), [(["deliver"], []), (["lifecycle"], [False]), (["backup"], [True])])
def test_a_worker_checks_the_archive_keys_of_the_stores_it_uses(
    monkeypatch: pytest.MonkeyPatch, queues: list[str], asked: list[bool]
) -> None:
    """Delivery workers use none."""
    calls: list[bool] = []
    monkeypatch.setattr(composition, "check_keys", lambda settings, *, backups: calls.append(backups))
    celery_app._check_archive_keys(sender=FakeWorker(queues))
    assert calls == asked


def test_a_worker_without_an_archive_key_of_its_stores_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery would go on after any other exception."""
    monkeypatch.setattr(composition, "check_keys", raising(SettingsError("ARCHIVE_KEY: a key is missing.")))
    with pytest.raises(SystemExit, match="a key is missing"):
        signals.worker_init.send(sender=FakeWorker(["backup"]))


def a_line(name: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("celery.app.trace", level, "", 0, "Task %(name)s succeeded", ({"name": name},), None)


def test_sweeps_are_not_logged_each_second_but_their_failures_are() -> None:
    assert not NotSweeps().filter(a_line(task_queue.SWEEP_IDLE))
    assert NotSweeps().filter(a_line(task_queue.WAKE))
    assert NotSweeps().filter(a_line(task_queue.SWEEP_IDLE, logging.ERROR))


def test_an_unexpected_error_leaves_a_task_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery writes what a task raises into its log and its events."""
    monkeypatch.setattr(tasks, "network_policies", None)
    task = OWN[task_queue.CHECK_POLICIES]
    task.push_request(called_directly=False)
    try:
        with pytest.raises(TaskFailed, match="AttributeError\n") as raised:
            task()
    finally:
        task.pop_request()
    assert "NoneType" not in str(raised.value) and raised.value.__suppress_context__
