"""Real Celery workers on a real Redis: what becomes of tasks that keep going wrong."""

from __future__ import annotations

import json
import sys
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import redis
from celery import Celery

from app.core.composition import Core
from app.core.redis import task_queue
from app.core.service import NewSession
from app.core.sessions.attempts import MAX_ATTEMPTS
from app.core.sessions.model import Record, Status
from app.process.settings import Settings
from tests.fakes import FakeRuntime
from tests.integration.serving import started
from tests.waiting import wait_for
from workers.lifecycle.intents import Lifecycle
from workers.sweeps import Sweeps

LEASE = 1.0
"""s: that of a worker that was killed is waited for."""


@pytest.fixture
def core(settings: Settings, redis_client: redis.Redis) -> Core:
    return Core(replace(settings, stale_after=0.1, lease_ttl=LEASE))


def sweep(core: Core) -> None:
    """What beat would have the workers do."""
    runtime = FakeRuntime()
    Sweeps(core, runtime, Lifecycle(core, runtime)).stale()


@contextmanager
def worker(core: Core, folder: Path, poison: str) -> Iterator[Path]:
    """A worker of the wake queue whose tasks go wrong; gives its log."""
    environ = {
        "REDIS_URL": core.settings.redis_url,
        "DATA_DIR": str(core.settings.data_dir),
        "POISON": poison,
        "LEASE_TTL": str(LEASE),
    }
    command = [sys.executable, "-m", "celery", "-A", "tests.integration.poison", "worker"]
    command += ["-Q", "wake", "-c", "1", "--without-gossip", "--without-mingle", "-l", "INFO"]
    log = folder / "worker.log"
    with started(command, environ, log):
        yield log


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        ("killed", "in each of 5 attempts"),
        ("busy", "The runtime is busy."),
        ("bug", "an internal error (ZeroDivisionError)"),
    ],
)
def test_a_task_that_never_ends_well_is_put_aside_and_its_session_says_why(
    core: Core, tmp_path: Path, poison: str, said: str
) -> None:
    """Killed with its worker, or retryable, five attempts; a bug at once. Then it is a dead letter, not a loop, though
    a killed worker's message is delivered again at once, to one that finds its lease taken."""
    with worker(core, tmp_path, poison) as log:
        uuid = core.sessions.create(NewSession(user_id="ada")).uuid

        def swept_and_failed() -> Record | None:
            sweep(core)
            return record if (record := core.store.get(uuid)).status is Status.FAILED else None

        failed = wait_for(
            swept_and_failed,
            "the session to be failed",
            lambda: log.read_text()[-3_000:],
            seconds=120,
        )
        assert said in failed.reason
        assert "secret" not in failed.reason
        letters = core.dead_letters.read()
        assert [(letter.task, letter.args) for letter in letters] == [(task_queue.PROVISION, (uuid, 1))]
        assert core.counters.read()["dead_letters"] == 1
        wait_for(lambda: core.counters.backlog(task_queue.QUEUES)["wake"] == 0, "the queue to be empty")


@pytest.mark.parametrize("away", ["no redis", "no runtime"])
def test_what_is_away_fails_no_session(core: Core, tmp_path: Path, away: str) -> None:
    """However often: the intent stands, and is enqueued again until it is back."""
    with worker(core, tmp_path, away) as log:
        record = core.sessions.create(NewSession(user_id="ada"))

        def met(times: int) -> bool:
            return log.read_text().count("deferred; the stale sweep will retry") >= times

        for number in range(1, MAX_ATTEMPTS + 3):
            wait_for(partial(met, number), "the delivery", log.read_text)
            core.sessions.resend(record)
        assert core.store.get(record.uuid).status is Status.CREATED
        assert core.dead_letters.read() == []


def test_a_task_carries_the_id_of_its_request_into_the_workers_log(core: Core, tmp_path: Path) -> None:
    with worker(core, tmp_path, "bug") as log:
        core.sessions.create(NewSession(user_id="ada"), request_id="request-of-the-test")
        wait_for(lambda: "request-of-the-test" in log.read_text(), "the id in the log")


def test_an_unexpected_error_of_a_task_is_logged_and_reported_without_its_text(
    core: Core, tmp_path: Path, redis_client: redis.Redis
) -> None:
    """Neither the worker's log nor Celery's event of the failure, which Flower shows, quotes it."""
    heard = redis_client.pubsub()
    heard.psubscribe("*celeryev*")
    with worker(core, tmp_path, "bug") as log:
        core.sessions.create(NewSession(user_id="ada"))
        wait_for(lambda: "raised unexpected" in log.read_text(), "the failure in the log", log.read_text)
        events: list[str] = []

        def reported() -> bool:
            message = (heard.get_message(timeout=0.1) or {}).get("data")
            events.append(str(b64decode(json.loads(message)["body"])) if isinstance(message, str) else "")
            return "task-failed" in events[-1]

        wait_for(reported, "the event of the failure")
    assert "ZeroDivisionError" in log.read_text() and "poison.py:" in log.read_text()
    assert "secret may" not in log.read_text() and not any("secret may" in event for event in events)


def test_a_worker_hears_no_command_of_celerys(core: Core, tmp_path: Path, redis_client: redis.Redis) -> None:
    """Whoever reaches its channel in Redis neither asks nor ends it: it carries out what is asked for after that."""
    stranger = Celery(broker=core.settings.redis_url)
    with worker(core, tmp_path, "bug") as log:
        wait_for(lambda: core.heartbeats.workers(time.time()) == 1, "the worker's heartbeat", log.read_text)
        assert stranger.control.ping(timeout=5.0) == []
        stranger.control.shutdown()
        uuid = core.sessions.create(NewSession(user_id="ada")).uuid
        wait_for(lambda: core.sessions.get(uuid).status is Status.FAILED, "its task", log.read_text)
        assert redis_client.pubsub_channels("*pidbox*") == []
        assert redis_client.pubsub_numpat() == 0


def test_workers_are_counted_while_they_live(core: Core, tmp_path: Path, redis_client: redis.Redis) -> None:
    with worker(core, tmp_path, "bug"):
        wait_for(lambda: core.heartbeats.workers(time.time()) == 1, "the worker's heartbeat")
    assert core.heartbeats.workers(time.time() + 60) == 0
