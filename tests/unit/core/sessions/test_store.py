"""The records in Redis: scripts, indexes, pages, deadlines, and what a sleeping session costs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from app.core.errors import IllegalState, SessionNotFound, StateUnavailable, Superseded
from app.core.limit_errors import QuotaExceeded
from app.core.redis import keys
from app.core.redis.connections import connect
from app.core.sessions.listing import Filter, SessionList
from app.core.sessions.model import TRANSITIONS, Signal, Status
from app.core.sessions.store import SessionStore
from tests.unit.core.conftest import a_record
from tests.world import World


def test_a_created_record_reads_back_and_keeps_its_uuid(store: SessionStore) -> None:
    record = a_record(labels={"team": "ß"}, ttl=60.0)
    assert store.create(record, quota=10, due=1_010.0)
    assert store.get(record.uuid) == record
    assert not store.create(a_record(user_id="bob"), quota=10)
    assert store.get(record.uuid) == record


def test_an_unknown_session_is_not_found(store: SessionStore) -> None:
    with pytest.raises(SessionNotFound):
        store.get("zzzzzzzz")
    with pytest.raises(SessionNotFound):
        store.change("zzzzzzzz", 1.0, to=Status.WAKING)


def test_the_quota_holds_under_concurrent_creates(store: SessionStore, redis_client: redis.Redis) -> None:
    """Counted in the script that creates, so that no two callers both see the last free place."""

    def create(number: int) -> bool:
        try:
            return bool(store.create(a_record(number), quota=5))
        except QuotaExceeded:
            return False

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(create, range(64)))
    assert sum(made) == 5
    assert redis_client.zcard("user:ada:sessions") == 5


@pytest.mark.parametrize("source", Status)
@pytest.mark.parametrize("target", Status)
def test_only_the_moves_of_the_table_are_made(store: SessionStore, source: Status, target: Status) -> None:
    """Every pair of states; a refused move changes nothing."""
    store.create(a_record(status=source), quota=10)
    if target in TRANSITIONS[source]:
        assert store.change("00000000", 2.0, to=target).record.status is target
    else:
        before = store.get("00000000")
        with pytest.raises(IllegalState):
            store.change("00000000", 2.0, to=target)
        assert store.get("00000000") == before


def test_a_move_keeps_the_indexes_and_its_intent_stands_until_it_is_settled(store: SessionStore) -> None:
    store.create(a_record(), quota=10)
    store.change("00000000", 2.0, to=Status.ACTIVE, settle=True, idle_at=60.0)
    assert store.counts()[Status.ACTIVE] == 1
    assert store.counts()[Status.CREATED] == 0
    assert [r.uuid for r in store.due(keys.IDLE, 61.0)] == ["00000000"]
    asked = store.change("00000000", 3.0, to=Status.SLEEPING, task="sessions.sleep", due=13.0).record
    assert (asked.generation, asked.settled, asked.requested_at) == (2, 1, 3.0)
    assert store.due(keys.IDLE, 1e9) == []
    assert [r.uuid for r in store.due(keys.INTENTS, 13.0)] == ["00000000"]
    with pytest.raises(Superseded):
        store.change("00000000", 4.0, expect={"generation": 1}, replicas=1)
    assert store.get("00000000") == asked
    done = store.change("00000000", 5.0, expect={"generation": 2}, settle=True).record
    assert (done.generation, done.settled) == (2, 2)
    assert store.due(keys.INTENTS, 1e9) == []


def test_a_noop_only_notes_the_use(store: SessionStore) -> None:
    """Waking what is awake starts nothing, and counts as use."""
    store.create(a_record(status=Status.ACTIVE), quota=10)
    change = store.change(
        "00000000", 5_000.0, to=Status.WAKING, noop=(Status.ACTIVE,), task="sessions.wake", touch=True, reason="x"
    )
    assert not change.applied
    assert (change.record.last_activity, change.record.signals) == (5_000.0, {"prompt": Signal(5_000.0)})
    assert (change.record.generation, change.record.reason) == (1, "")


def test_fields_at_their_default_leave_the_hash(store: SessionStore, redis_client: redis.Redis) -> None:
    store.create(a_record(reason="broken"), quota=10)
    store.change("00000000", 2.0, reason="")
    assert not redis_client.hexists("session:00000000", "reason")
    assert store.get("00000000").reason == ""


def test_terminated_leaves_a_tombstone_that_expires(store: SessionStore, redis_client: redis.Redis) -> None:
    store.create(a_record(status=Status.TERMINATING, ttl=60.0), quota=1)
    store.change("00000000", 5_000.0, to=Status.TERMINATED, settle=True)
    assert store.get("00000000").status is Status.TERMINATED
    assert 86_000 < redis_client.ttl("session:00000000") <= 86_400
    listed = SessionList(redis_client, store)
    assert listed.page(Filter(user_id="ada"), limit=10, cursor=None).total == 0
    gone = listed.page(Filter(user_id="ada", status=Status.TERMINATED), limit=10, cursor=None)
    assert [r.uuid for r in gone.items] == ["00000000"]
    assert store.due(keys.EXPIRY, 1e12) == []
    assert store.create(a_record(1), quota=1), "a terminated session must not count against the quota"
    assert store.forget_tombstones(5_000.0 + 86_400) == 1
    assert store.counts()[Status.TERMINATED] == 0


def test_a_deadline_without_a_record_is_dropped_and_deferring_creates_none(
    store: SessionStore, redis_client: redis.Redis
) -> None:
    """A sweep that looked at a session which was put to sleep meanwhile must not bring its deadline back."""
    redis_client.zadd(keys.IDLE, {"gonegone": 1.0})
    assert store.due(keys.IDLE, 2.0) == []
    assert redis_client.zcard(keys.IDLE) == 0
    store.defer(keys.IDLE, "00000000", 5.0)
    assert redis_client.zcard(keys.IDLE) == 0


@pytest.mark.real_redis
@pytest.mark.slow
def test_a_sleeping_session_costs_under_2_kb(world: World) -> None:
    """Everything Redis holds for it, record and index entries, as Redis itself counts it. What it cost is beside that,
    and is bounded by itself (tests/unit/core/costs/test_ledger.py)."""
    sleeping = [world.asleep(f"someone.with.a.long.address.{n}@example.com", ttl=86_400.0) for n in range(20)]
    client = world.core.redis
    for uuid in sleeping:
        events = keys.EVENTS.format(uuid=uuid)
        assert 0 < client.ttl(events) <= 600, "its events go while it sleeps"
        client.delete(events)
    names = [key for key in client.scan_iter() if not key.startswith(("ledger:", "costs:"))]
    total = sum(client.memory_usage(key, samples=0) or 0 for key in names)
    assert total / len(sleeping) < 2_048


def test_redis_away_is_state_unavailable() -> None:
    with pytest.raises(StateUnavailable):
        SessionStore(connect("redis://127.0.0.1:1/0", 0.2)).get("00000000")
