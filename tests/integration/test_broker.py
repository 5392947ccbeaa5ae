"""The workers' connection to Redis, when Redis dies under it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.transport import resolve_transport

from app.core.redis import task_queue
from app.core.redis.connections import connect
from tests.integration.serving import OwnRedis, started
from tests.waiting import wait_for
from workers.celery.app import app
from workers.celery.broker import Transport

WAKE = Queue("wake")


def at_work(url: str) -> Connection:
    """A worker's connection: it has a message it has not acknowledged, and waits for the next."""
    connection = Connection(url, transport=Transport, transport_options=task_queue.transport_options(60.0, 2.0))
    channel: Any = connection.default_channel
    taken: list[object] = []
    consumer = Consumer(channel, [WAKE], callbacks=[lambda _body, message: taken.append(message)])
    consumer.consume()
    headers = {"task": task_queue.WAKE}
    connection.Producer().publish([["one"], {}, {}], routing_key="wake", declare=[WAKE], headers=headers)
    while not taken:
        connection.drain_events(timeout=60)
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


@pytest.mark.parametrize("answer", ["ack", "reject", "requeue"])
def test_a_message_whose_end_redis_was_not_told_takes_no_place(own_redis: OwnRedis, answer: str) -> None:
    """Else the worker would take no more: it has as many as it may, and waits at no socket that could tell it."""
    connection = at_work(own_redis.url)
    qos: Any = connection.default_channel.qos
    qos.prefetch_count = 1
    (tag,) = qos._delivered
    assert not qos.can_consume()
    own_redis.kill()
    with pytest.raises(connection.connection_errors):
        qos.ack(tag) if answer == "ack" else qos.reject(tag, requeue=answer == "requeue")
    assert qos.can_consume()
    with suppress(connection.connection_errors):
        connection.close()


def test_a_worker_that_lost_redis_in_the_midst_of_its_work_takes_more(own_redis: OwnRedis, tmp_path: Path) -> None:
    """Whatever it was doing: it is killed while tasks begin and end, and what is asked for later is done."""
    command = [sys.executable, "-m", "celery", "-A", "workers.celery.app", "worker", "-Q", "deliver", "-c", "2"]
    command += ["--without-gossip", "--without-mingle", "-l", "INFO"]
    log = tmp_path / "worker.log"
    client = connect(own_redis.url, 5.0)
    tasks = task_queue.TaskQueue(client, own_redis.url, 60.0, 5.0)

    def waiting() -> int:
        with suppress(redis.ConnectionError):
            return int(client.llen("deliver"))
        return -1

    with started(command, {"REDIS_URL": own_redis.url, "DATA_DIR": str(tmp_path / "data")}, log):
        for _ in range(3):
            for _ in range(40):
                tasks.send(task_queue.DELIVER, "aaaa0001")
            wait_for(lambda: waiting() < 30, "some are done", log.read_text)
            own_redis.kill()
            own_redis.start()
            tasks.send(task_queue.DELIVER, "aaaa0001")
            wait_for(lambda: waiting() == 0, "all are done", log.read_text)


def test_the_workers_connect_so() -> None:
    assert app.conf.broker_url.startswith("redis://")
    assert resolve_transport("redis") is resolve_transport("rediss") is Transport
