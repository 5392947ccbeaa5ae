"""Who waits in a process hears of news over one connection, and misses none when that is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis

from app.core.redis import notifications
from app.core.redis.connections import connect
from app.core.redis.events import FROM_START, EventLog, SessionEvent
from app.core.redis.memory import Memory
from app.core.redis.notifications import Notices
from tests.integration.serving import OwnRedis
from tests.waiting import wait_for

UUIDS = [f"session-{number}" for number in range(50)]


@pytest.fixture
def client(own_redis: OwnRedis) -> Iterator[redis.Redis]:
    with connect(own_redis.url, 5.0) as client:
        yield client


def listeners(client: redis.Redis) -> int:
    return len(client.execute_command("CLIENT", "LIST", "TYPE", "PUBSUB").splitlines())


def listened_to(client: redis.Redis) -> list[str]:
    return client.pubsub_channels()


def test_fifty_that_follow_take_one_connection_and_each_hears_its_own(client: redis.Redis) -> None:
    log = EventLog(client, Memory(client))
    told: dict[str, SessionEvent] = {}

    def follow(uuid: str) -> None:
        told[uuid] = next(event for event in log.follow(uuid, FROM_START, 30) if event)

    threads = [threading.Thread(target=follow, args=(uuid,), daemon=True) for uuid in UUIDS]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(listened_to(client)) == len(UUIDS), "all are subscribed")
    assert listeners(client) == 1
    for uuid in UUIDS:
        log.append(uuid, "phase", {"of": uuid})
    for thread in threads:
        thread.join(30)
    assert {uuid: event.data["of"] for uuid, event in told.items()} == {uuid: uuid for uuid in UUIDS}
    wait_for(lambda: not listened_to(client), "nobody is subscribed any more")


def test_who_waits_alone_asks_redis_nothing_until_there_is_news(client: redis.Redis) -> None:
    log = EventLog(client, Memory(client))
    following = log.follow("ada", FROM_START, 30, quiet=0.05)
    assert next(following) is None
    asked = client.info("commandstats").get("cmdstat_xread", {}).get("calls", 0)
    assert [next(following) for _ in range(5)] == [None] * 5
    assert client.info("commandstats")["cmdstat_xread"]["calls"] == asked
    log.append("ada", "phase", {})
    assert next(event for event in following if event).type == "phase"


def test_events_of_before_a_connection_was_lost_and_made_anew_are_told(client: redis.Redis) -> None:
    log = EventLog(client, Memory(client))
    following = log.follow("ada", FROM_START, 30)
    assert next(following) is None
    for number in range(3):
        client.execute_command("CLIENT", "KILL", "TYPE", "PUBSUB")
        # As it is while the connection is being made: nobody hears of it.
        client.xadd("session:ada:events", {"type": "phase", "data": f'{{"number": {number}}}'})
        assert next(event for event in following if event).data == {"number": number}


def test_a_redis_that_hangs_is_noticed(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes on the connection, though it stands."""
    monkeypatch.setattr(notifications, "PING_EVERY", 0.1)
    with Notices(client).subscribe("channel") as news:
        assert news.wait(60)
        news.clear()
        client.execute_command("CLIENT", "PAUSE", "2000", "ALL")
        assert news.wait(60)


def test_a_listener_that_nobody_needs_ends_and_another_begins(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "PING_EVERY", 0.05)
    several = Notices(client)
    for _ in range(3):
        with several.subscribe("channel") as news:
            assert news.wait(60)
        wait_for(lambda: listeners(client) == 0, "it has ended")


def test_where_nobody_waits_nothing_is_tried_when_redis_is_gone(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "PAUSE", 0.05)
    lonely = Notices(connect(own_redis.url, 5.0))
    with lonely.subscribe("channel") as news:
        assert news.wait(60)
        own_redis.kill()
    wait_for(lambda: not lonely._listening, "its thread has ended")
