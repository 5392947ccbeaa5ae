"""The feed of all sessions' events: what is in it, how it is followed, and how it is bounded."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import pytest
import redis

from app.core.errors import StateUnavailable
from app.core.redis import feed as feeds
from app.core.redis import keys
from app.core.redis.connections import connect
from app.core.redis.events import FROM_START, EventLog
from app.core.redis.feed import Feed, FeedEvent
from app.core.redis.memory import Memory
from app.core.sessions.model import Status
from app.core.sessions.store import SessionStore
from app.process.private_text import private, without_private
from tests.unit.core.conftest import a_record
from tests.waiting import wait_for

UUID = a_record().uuid
A_STATE = {"uuid": UUID, "user_id": "ada", "made_by": "", "labels": "{}", "type": "state", "data": "{}"}


@pytest.fixture
def events(redis_client: redis.Redis) -> EventLog:
    return EventLog(redis_client, Memory(redis_client))


@pytest.fixture
def feed(redis_client: redis.Redis) -> Feed:
    return Feed(redis_client, Memory(redis_client))


def follow(
    feed: Feed, after: str = FROM_START, wanted: Callable[[FeedEvent], bool] = lambda event: True
) -> Iterator[FeedEvent | None]:
    return feed.follow(after, wanted, 60, 0.02)


def told(feed: Feed) -> list[FeedEvent]:
    """All that is kept."""
    return [event for event in feed.follow(FROM_START, lambda event: True, 0.1, 0.02) if event]


def add(client: redis.Redis, number: int) -> str:
    """Add an event as the scripts do; its id."""
    added = client.xadd(keys.FEED, A_STATE | {"data": json.dumps({"number": number})})
    client.publish(keys.FEED, "")
    return str(added)


def numbers(following: Iterator[FeedEvent | None], count: int) -> list[int]:
    """Of the next events."""
    events = (event for event in following if event is not None)
    return [next(events).data["number"] for _ in range(count)]


def test_an_event_says_whose_it_is_with_the_labels_of_then(feed: Feed, store: SessionStore) -> None:
    store.create(a_record(labels={"team": "ß"}, made_by="backend"), quota=None)
    store.change(UUID, 2.0, to=Status.FAILED, reason="no room")
    store.change(UUID, 3.0, labels={}, made_by="")
    store.change(UUID, 4.0, to=Status.TERMINATING)
    before = time.time()
    first, second, third = told(feed)
    assert [dict(each.data) for each in (first, second, third)] == [
        {"status": "created"},
        {"status": "failed", "reason": "no room"},
        {"status": "terminating"},
    ]
    assert (first.uuid, first.user_id, first.made_by, first.labels) == (UUID, "ada", "backend", {"team": "ß"})
    assert (second.made_by, third.made_by, third.labels) == ("backend", "", {})
    assert abs(first.at - before) < 60


def test_events_of_other_kinds_and_of_sessions_without_a_record_are_left_out(
    feed: Feed, store: SessionStore, events: EventLog
) -> None:
    store.create(a_record(), quota=None)
    for kind in ("phase", "idle_warning", "token", "tool_call", "tool_result", "revoked", "risk", "budget"):
        events.append(UUID, kind, {"state": "processed"})
    for state in ("queued", "delivered", "processed", "failed"):
        events.append(UUID, "message", {"state": state})
    for phase in ("stopped", "restored", "archived"):
        events.append(UUID, "phase", {"phase": phase, "ms": 1})
    events.append("zzzzzzzz", "state", {"status": "active"})
    assert [(each.type, dict(each.data)) for each in told(feed)] == [
        ("state", {"status": "created"}),
        ("message", {"state": "processed"}),
        ("message", {"state": "failed"}),
        ("phase", {"phase": "archived"}),
    ]


def test_a_session_changes_though_its_feed_is_broken(store: SessionStore, redis_client: redis.Redis) -> None:
    """A compromised gateway may write the feed, and an older list of Redis' users may forbid it."""
    redis_client.set(keys.FEED, "no stream")
    store.create(a_record(), quota=None)
    assert store.change(UUID, 2.0, to=Status.ACTIVE).record.status is Status.ACTIVE
    redis_client.delete(keys.FEED)
    redis_client.xadd(keys.FEED, A_STATE, id=f"{2**64 - 1}-{2**64 - 1}")
    assert store.change(UUID, 3.0, to=Status.SLEEPING).record.status is Status.SLEEPING


def test_malformed_entries_are_passed_over(feed: Feed, redis_client: redis.Redis) -> None:
    for broken in ({"type": "state"}, A_STATE | {"data": "{"}, A_STATE | {"labels": "[]"}, A_STATE | {"data": "1"}):
        redis_client.xadd(keys.FEED, broken)
    following = follow(feed)
    add(redis_client, 1)
    assert numbers(following, 1) == [1]
    redis_client.xadd(keys.FEED, {"type": "state"})
    add(redis_client, 2)
    assert numbers(following, 1) == [2]


@pytest.mark.slow
def test_a_follower_that_joins_amid_events_misses_none_and_sees_none_twice(
    feed: Feed, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before it reads from Redis, what comes later it is handed; each in chunks."""
    monkeypatch.setattr(feeds, "READ_AT_ONCE", 7)
    first = follow(feed)
    assert next(first) is None
    writer = threading.Thread(target=lambda: [add(redis_client, number) for number in range(600)], daemon=True)
    writer.start()
    wait_for(lambda: redis_client.xlen(keys.FEED) > 50, "some events")
    joined = [follow(feed) for _ in range(3)]
    assert [numbers(each, 600) for each in (first, *joined)] == [list(range(600))] * 4
    writer.join()
    for each in (first, *joined):
        assert next(each) is None


@pytest.mark.real_redis
@pytest.mark.slow
def test_many_followers_are_one_reader(feed: Feed, redis_client: redis.Redis) -> None:
    def reads() -> int:
        return int(redis_client.info("commandstats")["cmdstat_xread"]["calls"])

    threads = set(threading.enumerate())
    followers = [follow(feed) for _ in range(50)]
    assert {next(each) for each in followers} == {None}
    assert [each.name for each in set(threading.enumerate()) - threads if each.name != "notices"] == ["feed"]
    wait_for(lambda: redis_client.pubsub_numsub(keys.FEED)[0][1] == 1, "the reader is subscribed")
    before = reads()
    for number in range(10):
        add(redis_client, number)
    assert [numbers(each, 10) for each in followers] == [list(range(10))] * 50
    assert 0 < reads() - before <= 30


def test_each_follower_is_handed_what_it_wants(feed: Feed, redis_client: redis.Redis) -> None:
    even = follow(feed, wanted=lambda event: event.data["number"] % 2 == 0)
    for number in (1, 2):
        add(redis_client, number)
    assert numbers(even, 1) == [2]
    for number in range(3, 7):
        add(redis_client, number)
    assert numbers(even, 2) == [4, 6]


def test_a_slow_follower_ends_with_what_it_has_and_resumes(
    feed: Feed, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on."""
    monkeypatch.setattr(feeds, "QUEUED", 5)
    slow, quick = follow(feed), follow(feed)
    assert next(slow) is next(quick) is None
    for number in range(20):
        add(redis_client, number)
        assert numbers(quick, 1) == [number]
    handed = [event for event in slow if event]
    assert [event.data["number"] for event in handed] == list(range(len(handed)))
    assert 5 <= len(handed) < 20
    assert numbers(follow(feed, handed[-1].id), 20 - len(handed)) == list(range(len(handed), 20))


@pytest.mark.slow
def test_a_reader_that_nobody_needs_ends_and_another_begins(
    feed: Feed, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "QUIET", 0.05)
    for number in range(3):
        following = follow(feed, feed.last_id())
        assert next(following) is None
        add(redis_client, number)
        assert numbers(following, 1) == [number]
        following.close()  # type: ignore[attr-defined]
        wait_for(lambda: not feed._reading, "the reader has ended")


def test_a_follower_is_ended_when_redis_fails(
    feed: Feed, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And another one follows as soon as Redis is back."""
    following = follow(feed)
    assert next(following) is None
    with monkeypatch.context() as patch:
        patch.setattr(feed, "_read", Mock(side_effect=StateUnavailable("The state store is unreachable.")))
        redis_client.publish(keys.FEED, "")
        assert [event for event in following if event] == []
    again = follow(feed)
    assert next(again) is None
    add(redis_client, 1)
    assert numbers(again, 1) == [1]


def test_without_redis_nobody_follows() -> None:
    gone = connect("redis://127.0.0.1:9", 0.2)
    feed = Feed(gone, Memory(gone))
    with pytest.raises(StateUnavailable):
        next(follow(feed))
    assert not feed._reading
    assert not feed._followers


def test_what_is_no_longer_kept_is_noticed(feed: Feed, redis_client: redis.Redis) -> None:
    assert feed.complete_after(FROM_START)
    ids = [add(redis_client, number) for number in range(3)]
    assert all(feed.complete_after(each) for each in ids)
    assert not feed.complete_after(FROM_START)
    redis_client.xtrim(keys.FEED, maxlen=2, approximate=False)
    assert [feed.complete_after(each) for each in ids] == [False, True, True]
    redis_client.delete(keys.FEED)
    assert not feed.complete_after(ids[2]), "Redis has lost what it had"


@pytest.mark.slow
@pytest.mark.real_redis
def test_the_feed_is_bounded_in_events(store: SessionStore, events: EventLog, redis_client: redis.Redis) -> None:
    store.create(a_record(), quota=None)
    for _ in range(110):
        events.append_all(UUID, [("state", {"status": "active"})] * 100)
    assert 10_000 <= redis_client.xlen(keys.FEED) < 10_200


@pytest.mark.slow
@pytest.mark.real_redis
def test_the_feed_is_bounded_in_bytes(store: SessionStore, events: EventLog, redis_client: redis.Redis) -> None:
    """Some over it, as Redis guesses; much less while Redis is full."""
    store.create(a_record(labels={f"label-{number}": "x" * 256 for number in range(32)}), quota=None)
    for _ in range(20):
        events.append_all(UUID, [("state", {"status": "active"})] * 100)
    taken = redis_client.memory_usage(keys.FEED, samples=0)
    assert 2_000_000 < taken < 5_000_000
    memory = Memory(redis_client)
    feed = Feed(redis_client, memory)
    feed.shrink_when_full()
    assert redis_client.memory_usage(keys.FEED, samples=0) == taken
    redis_client.config_set("maxmemory", redis_client.info("memory")["used_memory"])
    try:
        memory.invalidate()
        feed.shrink_when_full()
    finally:
        redis_client.config_set("maxmemory", 0)
    assert redis_client.memory_usage(keys.FEED, samples=0) < 300_000


def test_what_is_a_users_own_stays_in_the_sessions_stream(feed: Feed, store: SessionStore) -> None:
    store.create(a_record(), quota=None)
    reasons = (
        f"It can't read {private('my file')} and {private('another')}. Last lines of its log: my words",
        "A mark that was cut off: “my file",
        "Nothing of anybody's.",
    )
    for number, reason in enumerate(reasons, 2):
        event = ("state", {"status": "failed", "reason": reason, "reason_code": None, "unreadable": ["my file"]})
        store.change(UUID, float(number), reason=reason, event=event)
    seen = [dict(each.data) for each in told(feed)[1:]]
    assert seen == [{"status": "failed", "reason": without_private(reason), "reason_code": None} for reason in reasons]
    assert "my" not in str(seen)
