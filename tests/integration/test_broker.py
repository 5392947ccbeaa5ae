"""The workers' connection to Redis, when Redis dies under it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.pidbox import Mailbox
from kombu.transport import resolve_transport

from app.core.redis import task_queue
from tests.integration.serving import OwnRedis
from workers.broker import Transport
from workers.celery_app import app

WAKE = Queue("wake")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    with OwnRedis(tmp_path) as server:
        yield server


def at_work(url: str) -> Connection:
    """A worker's connection: it listens for commands, has a message it has not acknowledged, and waits for the next."""
    connection = Connection(url, transport=Transport, transport_options=task_queue.transport_options(60.0, 2.0))
    channel: Any = connection.default_channel
    taken: list[object] = []
    consumer = Consumer(channel, [WAKE], callbacks=[lambda _body, message: taken.append(message)])
    consumer.consume()
    headers = {"task": task_queue.WAKE}
    connection.Producer().publish([["one"], {}, {}], routing_key="wake", declare=[WAKE], headers=headers)
    while not taken:
        connection.drain_events(timeout=60)
    node = Mailbox("celery", type="fanout").Node("worker@here", channel=connection.channel())
    node.listen()
    channel._brpop_start()
    assert channel.qos._delivered and channel._in_poll
    return connection


def test_a_connection_that_broke_is_closed_whoever_noticed_first(own_redis: OwnRedis) -> None:
    """As Celery does it in `Consumer.on_connection_error_after_connected`, where it ignores every error of the first
    and the connection's own of the second; the worker that met another ended."""
    connection = at_work(own_redis.url)
    own_redis.kill()
    with suppress(connection.connection_errors):
        connection.collect(socket_timeout=2.0)
    connection.close()


def test_what_was_taken_is_handed_back_by_a_connection_that_closes(own_redis: OwnRedis) -> None:
    connection = at_work(own_redis.url)
    connection.close()
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.llen("wake") == 1


def test_the_workers_connect_so() -> None:
    assert app.conf.broker_url.startswith("redis://")
    assert resolve_transport("redis") is resolve_transport("rediss") is Transport
