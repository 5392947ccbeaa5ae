"""A Redis that is nearly full refuses what is new and goes on with all else; one that is full goes on as it can."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from app.core.composition import Core
from app.core.errors import StoreFull
from app.core.redis import keys
from app.core.redis.memory import BALLAST_SHARE
from app.core.sessions.model import Status
from tests.unit.api.helpers import (
    ASYNC,
    ONCE,
    TEXT,
    Client,
    add_backup,
    alive,
    check_problem,
    create,
    move,
    new_session,
)

CHUNK = 100_000
NEARLY = 0.96
"""Well into the reserve: what Redis itself takes varies by some 100 KB."""


def taken(client: redis.Redis) -> int:
    """What it holds, as it counts for its limit."""
    memory = client.info("memory")
    return int(memory["used_memory"]) - int(memory["mem_not_counted_for_evict"])


@pytest.fixture
def limited(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """A Redis with so much more than it holds now that what connections and scripts take is nothing beside it."""
    redis_client.config_set("maxmemory", taken(redis_client) + 32 * 1024**2)
    try:
        yield redis_client
    finally:
        redis_client.config_set("maxmemory", 0)


def fill(client: redis.Redis, share: float) -> None:
    """Fill it to this share of what it may take."""
    number = 0
    while True:
        left = share * client.info("memory")["maxmemory"] - taken(client)
        if left <= 0:
            return
        try:
            client.set(f"filler:{number}", "x" * max(1, min(CHUNK, int(left))))
        except redis.OutOfMemoryError:
            return
        number += 1


def fill_up(client: redis.Redis) -> None:
    """Leave no room for even the shortest text, by lowering what it may take."""
    client.config_set("maxmemory", taken(client) // 2)
    with pytest.raises(redis.OutOfMemoryError):
        client.set("filler", "x")


def empty(client: redis.Redis) -> None:
    for name in client.scan_iter("filler:*"):
        client.delete(name)


@pytest.mark.parametrize("call", ["create", "restore", "chat"])
@pytest.mark.slow
def test_what_is_new_is_507_while_only_the_reserve_is_left(
    client: Client, core: Core, limited: redis.Redis, call: str
) -> None:
    uuid, name = new_session(client), add_backup(core).name
    path, body = {
        "create": ("/session/create", {"user_id": "ada"}),
        "restore": (f"/backups/{name}/restore", {"user_id": "ada"}),
        "chat": (f"/session/{uuid}/chat", {"message": "hi", "id": "m1"}),
    }[call]
    fill(limited, NEARLY)
    problem = check_problem(client.post(path, json=body, headers=ONCE | ASYNC), 507, "insufficient_storage")
    assert "full" in str(problem["detail"])
    assert core.sessions.page(user_id="ada").total == 1
    assert core.store.get(uuid).waiting == 0
    empty(limited)
    assert client.post(path, json=body, headers=ONCE | ASYNC).status_code in (201, 202), "it recovers by itself"


@pytest.mark.slow
def test_what_was_carried_out_is_told_of_though_there_is_no_room_now(
    client: Client, core: Core, limited: redis.Redis
) -> None:
    """A creation by its key, and a prompt by its id."""
    uuid = create(client, ONCE).json["uuid"]
    core.redis.delete(*core.redis.keys(keys.IDEMPOTENCY.format(digest="*")))
    core.inbox.take(uuid, "hi", "m1", now=time.time())
    core.inbox.finish(uuid, "m1", response={"text": "hello"}, now=time.time())
    fill(limited, NEARLY)
    again = create(client, ONCE)
    assert (again.status_code, again.json["uuid"]) == (201, uuid)
    answer = client.post(f"/session/{uuid}/chat", json={"message": "hi", "id": "m1"})
    assert (answer.status_code, answer.json["pod_response"]) == (200, {"text": "hello"})


@pytest.mark.parametrize("fullness", ["reserve", "limit"])
@pytest.mark.slow
def test_what_frees_room_works_however_full_it_is(
    client: Client, core: Core, limited: redis.Redis, fullness: str, uuid: str
) -> None:
    fill(limited, NEARLY)
    if fullness == "limit":
        fill_up(limited)
    answer = client.post(f"/session/{uuid}/sleep", headers=ONCE)
    assert (answer.status_code, answer.json["status"]) == (200, Status.SLEEPING), answer.text
    assert client.get(f"/session/{uuid}").json["session"]["status"] == Status.SLEEPING
    with core.attempts.begin(uuid, core.store.get(uuid).generation) as begun:
        assert begun is not None
    assert core.inbox.hold(uuid, core.store.get(uuid).generation, time.time())
    assert client.post(f"/session/{uuid}/wake").status_code == 200
    answer = client.delete(f"/session/{uuid}", headers=ASYNC)
    assert (answer.status_code, answer.json["status"]) == (202, Status.TERMINATING), answer.text
    core.inbox.close(uuid, "The session was deleted.", time.time())
    move(core, uuid, Status.TERMINATED)


@pytest.mark.slow
def test_a_full_redis_takes_no_answers_for_keys(client: Client, limited: redis.Redis) -> None:
    uuid = new_session(client)
    fill(limited, NEARLY)
    before = limited.dbsize()
    for number in range(5):
        answer = client.post(f"/session/{uuid}/wake", headers={"Idempotency-Key": f"k{number}"})
        assert answer.status_code == 200
    assert limited.keys(keys.IDEMPOTENCY.format(digest="*")) == []
    assert limited.dbsize() <= before + 10


@pytest.mark.slow
def test_events_shrink_while_there_is_no_room(core: Core, uuid: str, limited: redis.Redis) -> None:
    """They are told all the same: waiting calls and pages live on them."""
    tokens = [("token", {"message_id": "m", "text": "t" * 4_000})] * 100
    core.events.append_all(uuid, tokens)
    name = keys.EVENTS.format(uuid=uuid)
    before = limited.memory_usage(name, samples=0)
    fill(limited, NEARLY)
    core.memory.invalidate()
    core.events.append_all(uuid, tokens)
    core.events.append(uuid, "backup", {"status": "done"})
    assert int(limited.memory_usage(name, samples=0)) < min(100_000, int(before))
    assert limited.xrevrange(name, count=1)[0][1]["type"] == "backup"


@pytest.mark.slow
def test_an_answer_takes_the_place_of_older_ones_while_there_is_no_room(
    client: Client, core: Core, limited: redis.Redis
) -> None:
    uuid = new_session(client)
    for number in range(3):
        core.inbox.take(uuid, "hi", f"m{number}", now=time.time())
    fill(limited, NEARLY)
    for number in range(3):
        assert core.inbox.finish(uuid, f"m{number}", response={"text": "y" * 60_000}, now=time.time())
    assert [len(limited.keys(f"message:{uuid}:{name}")) for name in ("m0", "m1", "m2")] == [0, 0, 1]


def test_a_redis_that_is_full_to_the_brim_says_so(core: Core, client: Client, limited: redis.Redis) -> None:
    fill_up(limited)
    with pytest.raises(StoreFull):
        core.counters.count("wakes")
    check_problem(create(client), 507, "insufficient_storage")


def test_without_a_limit_nothing_is_refused_and_no_percentage_known(client: Client, core: Core) -> None:
    """Nor is there a ballast."""
    alive(core)
    fill_of_none = core.memory.read()
    assert (fill_of_none.limit, fill_of_none.state) == (0, "unlimited")
    assert create(client).status_code == 201
    body = client.get("/health").json
    memory = body["redis_memory"]
    assert (body["status"], memory["state"], memory["percent"]) == ("healthy", "unlimited", None)
    core.redis.set(keys.BALLAST, "x")
    core.memory.adjust_ballast()
    assert not core.redis.exists(keys.BALLAST)


# What operators see


@pytest.mark.parametrize(
    ("share", "state", "status"), [(0.0, "ok", "healthy"), (0.8, "filling", "degraded"), (NEARLY, "full", "degraded")]
)
def test_health_tells_how_full_it_is(
    client: Client, core: Core, limited: redis.Redis, share: float, state: str, status: str
) -> None:
    alive(core)
    fill(limited, share)
    answer = client.get("/health")
    assert (answer.status_code, answer.json["status"]) == (200, status), "nobody may take it out of service for that"
    memory = answer.json["redis_memory"]
    assert (memory["state"], answer.json["redis"]) == (state, "connected")
    assert memory["max_bytes"] == int(limited.info("memory")["maxmemory"])
    assert 0 < memory["percent"] == round(100 * memory["used_bytes"] / memory["max_bytes"], 1) < 100
    assert client.get("/readyz").status_code == 200


def test_metrics_tell_how_full_it_is(client: Client, limited: redis.Redis) -> None:
    body = client.get("/metrics").json
    assert 0 < body["redis_used_bytes"] < body["redis_max_bytes"]
    text = client.get("/metrics", headers=TEXT).text
    assert "sessions_redis_used_bytes " in text and "sessions_redis_max_bytes " in text


@pytest.mark.slow
def test_the_ballast_is_given_up_when_all_else_is_taken_and_held_again_when_there_is_room(
    core: Core, limited: redis.Redis
) -> None:
    """Between the two nothing happens, however often it is looked."""
    limit = limited.info("memory")["maxmemory"]
    for _ in range(2):
        core.memory.adjust_ballast()
        assert limited.strlen(keys.BALLAST) == int(limit * BALLAST_SHARE)
    fill(limited, 1.0)
    with pytest.raises(redis.OutOfMemoryError):
        limited.lpush("wake", "x" * CHUNK)
    core.memory.adjust_ballast()
    assert not limited.exists(keys.BALLAST)
    assert limited.lpush("wake", "x" * 10_000) == 1
    core.memory.adjust_ballast()
    assert not limited.exists(keys.BALLAST)
    empty(limited)
    core.memory.adjust_ballast()
    assert limited.exists(keys.BALLAST)
