"""Which messages workers take from their queues: those of the service as it sends them, and no others."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue

from app.core.redis import task_queue
from app.core.redis.task_queue import TaskQueue
from workers.celery import admission
from workers.celery.app import app
from workers.celery.broker import Transport

Message = dict[str, Any]
UUID = "aaaa0001"
ARGS = (UUID, 3)


@pytest.fixture
def take(redis_client: redis.Redis) -> Callable[[str], Message]:
    """Takes the next message out of a queue, as it lies there."""

    def taken(name: str) -> Message:
        text = redis_client.rpop(name)
        assert isinstance(text, str)
        message: Message = json.loads(text)
        return message

    return taken


@pytest.fixture
def honest(redis_client: redis.Redis, redis_server: str, take: Callable[[str], Message]) -> Message:
    """A message to delivery workers as the gateway sends it."""
    TaskQueue(redis_client, redis_server, 60.0, 5.0).send(task_queue.DELIVER, *ARGS)
    return take("deliver")


def altered(message: Message, **changes: Any) -> Message:
    """The message with these parts in the place of its own, merged into it where both are dicts."""
    merged = {name: {**message[name], **value} if isinstance(value, dict) else value for name, value in changes.items()}
    return {**message, **merged}


def body(*parts: object) -> str:
    return base64.b64encode(json.dumps(parts).encode()).decode()


@pytest.mark.parametrize("task", sorted(task_queue.ROUTES))
def test_what_the_service_sends_is_taken_from_its_own_queue_only(
    task: str, redis_client: redis.Redis, redis_server: str, take: Callable[[str], Message]
) -> None:
    """As it is: nothing of it had to be put right."""
    TaskQueue(redis_client, redis_server, 60.0, 5.0).send(task, *ARGS, request_id="one")
    message = take(task_queue.ROUTES[task])
    taken_from = {name: admission.admit(message, name) for name in task_queue.QUEUES}
    assert taken_from == {name: message if name == task_queue.ROUTES[task] else None for name in task_queue.QUEUES}


@pytest.mark.parametrize("entry", app.conf.beat_schedule.values(), ids=lambda entry: str(entry["task"]))
def test_what_beat_sends_is_taken(
    entry: dict[str, Any], redis_client: redis.Redis, redis_server: str, take: Callable[[str], Message]
) -> None:
    app.loader.import_default_modules()
    with Connection(redis_server) as connection:
        app.tasks[entry["task"]].apply_async(connection=connection, **entry["options"])
    message = take(task_queue.ROUTES[entry["task"]])
    assert admission.admit(message, task_queue.ROUTES[entry["task"]]) == message


SIGNATURE = {"task": task_queue.TEARDOWN, "args": ARGS, "kwargs": {}, "options": {}, "immutable": True}


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"task": task_queue.TEARDOWN}},
        {"headers": {"task": task_queue.RENEW_TOKEN}},
        {"headers": {"task": "celery.starmap"}, "body": body([SIGNATURE, [ARGS]], {}, {})},
        {"headers": {"task": ["sessions.deliver"]}},
        {"headers": {"task": None}},
        # Protocol 1, whose tasks are named in the body.
        {"headers": None, "body": base64.b64encode(json.dumps(SIGNATURE).encode()).decode()},
        *({"body": body(ARGS, {}, {name: [SIGNATURE]})} for name in sorted(admission.OTHERS)),
        *({"headers": {name: [SIGNATURE]}} for name in sorted(admission.OTHERS)),
        # All that is embedded becomes part of the request.
        {"body": body(ARGS, {}, {"is_eager": True})},
        # What Celery would read as something else than was looked at.
        {"properties": {"body_encoding": None}},
        {"content-type": "application/x-yaml"},
        {"headers": {"compression": "gzip"}},
        {"body": "[[], {}, {}]"},
        {"body": body(ARGS, {})},
        {"body": body("args", {}, {})},
        {"body": body(ARGS, [], {})},
        {"body": body(ARGS, {}, None)},
        {"body": body([[]] * 2_000, {}, {})},
        {"body": base64.b64encode(b"[" * 100_000).decode()},
        {"body": 7},
        {"properties": {"delivery_info": None}},
        {"properties": None},
    ],
)
def test_what_a_process_of_the_service_would_not_send_is_refused(honest: Message, changes: dict[str, Any]) -> None:
    assert admission.admit(honest, "deliver") == honest
    assert admission.admit(altered(honest, **changes), "deliver") is None


@pytest.mark.parametrize("message", [None, 7, "text", [], {}, {"headers": {"task": task_queue.DELIVER}}])
def test_what_is_no_message_is_refused(message: Any) -> None:
    assert admission.admit(message, "deliver") is None


def test_a_refusal_is_logged_with_task_and_queue_and_nothing_else(
    honest: Message, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        admission.admit(altered(honest, headers={"task": task_queue.TEARDOWN}), "deliver")
        admission.admit(altered(honest, headers={"task": "x" * 10_000}), "deliver")
    assert [(each.levelname, vars(each)["task"], vars(each)["queue"]) for each in caplog.records] == [
        ("ERROR", task_queue.TEARDOWN, "deliver"),
        ("ERROR", "x" * 100, "deliver"),
    ]
    assert [each for each in caplog.records if UUID in str(vars(each))] == []


def test_what_is_handed_back_goes_into_the_queue_it_was_taken_from(
    honest: Message, redis_client: redis.Redis, redis_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever queue it names: who hands it back may write into all of them. Once more as well."""
    monkeypatch.setattr(Transport, "admitting", staticmethod(admission.admit))
    named = altered(honest, properties={"delivery_info": {"exchange": "", "routing_key": "backup"}})
    redis_client.lpush("deliver", json.dumps(named))
    taken: list[str] = []
    for _ in range(2):
        options = task_queue.transport_options(60.0, 5.0)
        with Connection(redis_server, transport=Transport, transport_options=options) as connection:
            channel = connection.default_channel
            consumer = Consumer(channel, [Queue("deliver")], on_message=lambda each: taken.append(each.headers["task"]))
            consumer.consume()
            connection.drain_events(timeout=60)
        assert taken.pop() == task_queue.DELIVER
        assert (redis_client.llen("deliver"), redis_client.llen("backup")) == (1, 0)


def test_events_of_workers_pass() -> None:
    """To Flower: they are nobody's tasks."""
    event = {"body": "", "properties": {"delivery_info": {"exchange": "celeryev", "routing_key": "worker.heartbeat"}}}
    assert admission.admit(event, "celeryev.of-flower") == event
