"""A real worker, and messages in its queue that none of the service's processes would send."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from app.core.composition import Core
from app.core.redis import task_queue
from app.core.service import NewSession
from app.core.sessions.model import Status
from app.process.settings import Settings
from tests.integration.serving import started
from tests.waiting import wait_for


@pytest.fixture
def core(settings: Settings, redis_client: redis.Redis) -> Core:
    return Core(replace(settings, stale_after=60.0))


@contextmanager
def worker(core: Core, log: Path) -> Iterator[None]:
    """One of the queue `wake`, whose every task is put aside as a dead letter."""
    environ = {"REDIS_URL": core.settings.redis_url, "DATA_DIR": str(core.settings.data_dir), "POISON": "bug"}
    command = [sys.executable, "-m", "celery", "-A", "tests.integration.poison", "worker"]
    command += ["-Q", "wake", "-c", "1", "--without-gossip", "--without-mingle", "-l", "INFO"]
    with started(command, environ, log):
        yield


def forged(call: str, task: str, args: list[object], **embed: object) -> str:
    """A message like that one which calls something else."""
    message: dict[str, Any] = json.loads(call)
    message["headers"]["task"] = task
    message["body"] = base64.b64encode(json.dumps([args, {}, embed]).encode()).decode()
    return json.dumps(message)


def test_a_worker_carries_out_nothing_that_its_queue_is_not_for(
    core: Core, tmp_path: Path, redis_client: redis.Redis
) -> None:
    """Neither by name, nor by way of a task that is its own and fails. What comes after is done."""
    victims = [core.sessions.create(NewSession(user_id="ada")).uuid for _ in range(3)]
    call = redis_client.rpop("wake")
    assert isinstance(call, str)
    redis_client.delete("wake")
    teardown = {"task": task_queue.TEARDOWN, "kwargs": {}, "options": {}, "immutable": True}
    redis_client.lpush(
        "wake",
        forged(call, task_queue.TEARDOWN, [victims[0], 1]),
        forged(call, task_queue.RENEW_TOKEN, [], errbacks=[{**teardown, "args": [victims[1], 1]}]),
        forged(call, "celery.starmap", [{**teardown, "args": []}, [[victims[2], 1]]]),
    )
    log = tmp_path / "worker.log"
    with worker(core, log):
        other = core.sessions.create(NewSession(user_id="bob")).uuid
        wait_for(lambda: core.store.get(other).status is Status.FAILED, "the honest task", log.read_text)
    assert [core.store.get(victim).status for victim in victims] == [Status.CREATED] * 3
    assert [letter.uuid for letter in core.dead_letters.read()] == [other]
    refusals = [json.loads(line) for line in log.read_text().splitlines() if "message refused" in line]
    assert [(each["task"], each["queue"]) for each in refusals] == [
        (task_queue.TEARDOWN, "wake"),
        (task_queue.RENEW_TOKEN, "wake"),
        ("celery.starmap", "wake"),
    ]
    assert [uuid for uuid in victims if uuid in json.dumps(refusals)] == []
