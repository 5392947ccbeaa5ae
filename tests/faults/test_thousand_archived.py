"""A thousand archived sessions: what they take of Redis, that no workspace is kept for them, and that they all come
back after a loss of Redis.

Each was created, slept and was archived by the code of the service, with a runtime in memory in place of restic; their
markers lie encrypted in a store on this machine.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
import redis

from app.core.redis import keys
from app.core.sessions.model import Record, Status, Tier
from app.core.storage.archive_keys import new_key
from tests.world import World

pytestmark = pytest.mark.slow

SESSIONS = 1_000
AT_ONCE = 90
"""Fewer than a world works on at a time."""

TTL = 3_600.0

OWN = (keys.SESSION, keys.POINTS)
SHARED = (keys.ALL, keys.BY_STATUS.format(status=Status.SLEEPING), keys.ARCHIVED, keys.EXPIRY, keys.DRILLS, keys.IN_USE)

OWN_MOST, ALL_MOST = 1_024, 1_900
"""Bytes of one session: of its own keys, and with its places in what it shares with others."""


def archived(world: World) -> dict[str, Record]:
    """The records of that many sessions, each of its own user."""
    for number in range(SESSIONS):
        labels = {"course": "python-101", "seat": f"{number}"}
        uuid = world.active(f"user-{number}@example.org", ttl=TTL, labels=labels)
        world.sessions.sleep(uuid)
        world.work()
    world.pass_time(TTL)
    for _ in range(SESSIONS):
        world.sweeps.expired()
        world.work()
        world.pass_time(10)
        if len(world.core.store.archived()) == SESSIONS:
            break
    return {record.uuid: record for record in world.core.store.find(world.core.store.archived())}


def bytes_of(world: World, uuids: set[str]) -> Counter[str]:
    """The bytes of each kind of key that lasts as long as its session is archived."""
    client, found = world.core.redis, Counter[str]()
    for name in client.scan_iter("*", count=1_000):
        if client.ttl(name) > 0 or name in (keys.FEED, keys.AUDIT):
            continue
        uuid = next((part for part in name.split(":") if part in uuids), None)
        kind = name.replace(uuid, "{uuid}") if uuid else keys.BY_USER if name.startswith("user:") else name
        found[kind] += client.memory_usage(name, samples=0) or 0
    return found


def test_a_thousand_archived_sessions_take_little_and_come_back(redis_client: redis.Redis, tmp_path: Path) -> None:
    world = World(redis_client, tmp_path, archive_key=new_key(), archives_at_once=AT_ONCE)
    world.core.store.first_sight(world.now)
    before = archived(world)
    assert (len(before), world.runtime.workspaces) == (SESSIONS, {})
    assert {(record.status, record.tier) for record in before.values()} == {(Status.SLEEPING, Tier.ARCHIVED)}

    kinds = bytes_of(world, set(before))
    own = sum(kinds[each] for each in OWN) / SESSIONS
    whole = sum(kinds.values()) / SESSIONS
    print(f"{own:.0f} B a session, with its places in indexes {whole:.0f} B")
    print("\n".join(f"{size / SESSIONS:8.1f} B {kind}" for kind, size in kinds.most_common(12)))
    assert set(OWN) | set(SHARED) | {keys.BY_USER} <= kinds.keys()
    assert own < OWN_MOST and whole < ALL_MOST, kinds

    world.core.redis.flushall()
    world.now += 60
    began = time.monotonic()
    world.sweeps.stale()
    world.work()
    print(f"all were back {time.monotonic() - began:.1f} s after the first sweep began")
    back = {record.uuid: record for record in world.core.store.find(before)}
    same = ("user_id", "labels", "created_at", "ttl", "last_activity", "status", "tier", "archived_at", "restore_from")
    assert {uuid: [getattr(each, name) for name in same] for uuid, each in back.items()} == {
        uuid: [getattr(each, name) for name in same] for uuid, each in before.items()
    }
    assert world.core.store.archived() == set(before)
    assert world.runtime.workspaces == {}
    seats = [world.sessions.page(user_id=f"user-{number}@example.org", tier=Tier.ARCHIVED) for number in (0, 999)]
    assert [[each.labels["seat"] for each in page.items] for page in seats] == [["0"], ["999"]]
