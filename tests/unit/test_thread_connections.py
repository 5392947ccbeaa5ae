"""Each thread talks to Redis over a connection of its own, which mends itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.sessions.thread_connections import ThreadConnections


@pytest.fixture
def client(redis_server: str, redis_client: redis.Redis) -> Iterator[redis.Redis]:
    retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    pool = ThreadConnections.from_url(redis_server, decode_responses=True, socket_timeout=0.2, retry=retry)
    with redis.Redis(connection_pool=pool) as client:
        yield client
        pool.disconnect()


def test_a_thread_keeps_its_connection_and_shares_it_with_nobody(client: redis.Redis) -> None:
    def number() -> int:
        return int(client.client_id())

    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.extend([number(), number()])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 3
    assert number() == number()
    assert number() not in seen


def test_a_connection_that_redis_closed_is_made_again(client: redis.Redis, redis_client: redis.Redis) -> None:
    redis_client.client_kill_filter(_id=str(client.client_id()))
    assert client.ping()


def test_the_answer_to_a_command_that_timed_out_is_never_taken_for_anothers(client: redis.Redis) -> None:
    with pytest.raises(redis.TimeoutError):
        client.blpop(["nothing-comes"], timeout=1)
    client.set("key", "value")
    assert client.get("key") == "value"


def test_pipelines_and_scripts_work_on_it(client: redis.Redis) -> None:
    with client.pipeline() as pipe:
        pipe.set("a", "1")
        pipe.incr("a")
        assert pipe.execute() == [True, 2]
    assert client.register_script("return redis.call('GET', KEYS[1])")(keys=["a"]) == "2"
