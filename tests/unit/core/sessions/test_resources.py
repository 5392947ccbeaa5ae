"""What is kept of a workspace's use: an hour, in little room, and the disk."""

from __future__ import annotations

import pytest

from app.core.redis import keys
from app.core.sessions.model import Status
from app.core.sessions.resources import KEPT, MIB, Sample, hour, present
from tests.world import World

GIB = 1024 * MIB
BUSY = Sample(0.5, 300 * MIB, 2 * GIB)


def test_an_hour_is_kept_and_no_more(world: World) -> None:
    uuid, resources = world.active(), world.core.resources
    start = world.now
    for minute in range(90):
        assert resources.note(uuid, Sample(minute, minute * MIB, minute * MIB), start + 60 * minute)
    known = resources.read(uuid)
    assert sorted(known) == [int(start // 60) + minute for minute in range(30, 90)]
    assert known[max(known)] == Sample(89.0, 89 * MIB, 89 * MIB)
    assert KEPT - 5 <= world.core.redis.ttl(keys.RESOURCES.format(uuid=uuid)) <= KEPT
    found = hour(known, world.get(uuid), start + 60 * 90)
    assert [sample.cpu for _, sample in found] == [float(minute) for minute in range(30, 90)]


def test_a_second_report_of_a_minute_takes_the_place_of_the_first(world: World) -> None:
    uuid, resources = world.active(), world.core.resources
    resources.note(uuid, Sample(9.0), world.now)
    resources.note(uuid, BUSY, world.now)
    assert list(resources.read(uuid).values()) == [BUSY]


def test_a_minute_that_was_skipped_is_as_the_one_before_and_a_longer_gap_is_no_use(world: World) -> None:
    """Reports are not as regular as minutes."""
    uuid, resources = world.active(), world.core.resources
    begun = world.now - world.now % 60
    for minute in (0, 2, 10):
        resources.note(uuid, BUSY, begun + 60 * minute)
    found = [sample.cpu for _, sample in hour(resources.read(uuid), world.get(uuid), begun + 60 * 12)]
    assert found[-12:] == [0.5] * 5 + [0.0] * 5 + [0.5] * 2
    assert {sample.disk_bytes for _, sample in hour(resources.read(uuid), world.get(uuid), begun + 60 * 12)} == {
        2 * GIB
    }


def test_asleep_it_uses_its_disk_only_also_when_the_hour_is_forgotten(world: World) -> None:
    uuid, resources = world.active(), world.core.resources
    resources.note(uuid, BUSY, world.now)
    assert present(resources.read(uuid), world.get(uuid), world.now) == BUSY
    world.sessions.sleep(uuid)
    world.work()
    assert world.get(uuid).status is Status.SLEEPING
    assert present(resources.read(uuid), world.get(uuid), world.now) == Sample(disk_bytes=2 * GIB)
    world.core.redis.delete(keys.RESOURCES.format(uuid=uuid))
    record, known = world.get(uuid), resources.read(uuid)
    assert present(known, record, world.now) == Sample(disk_bytes=2 * GIB)
    assert {sample for _, sample in hour(known, record, world.now)} == {Sample(disk_bytes=2 * GIB)}


def test_a_workspace_that_no_longer_reports_is_not_shown_as_it_was(world: World) -> None:
    uuid, resources = world.active(), world.core.resources
    resources.note(uuid, BUSY, world.now)
    assert present(resources.read(uuid), world.get(uuid), world.now + 120) == BUSY
    assert present(resources.read(uuid), world.get(uuid), world.now + 240) == Sample(disk_bytes=2 * GIB)


def test_nothing_is_noted_of_a_session_that_is_being_deleted(world: World) -> None:
    """Its keys would be left."""
    uuid, resources = world.active(), world.core.resources
    world.sessions.delete(uuid, backup=False)
    assert not resources.note(uuid, BUSY, world.now)
    assert not resources.note("zzzzzzzz", BUSY, world.now)
    assert list(world.core.redis.scan_iter("session:*:resources")) == []
    world.work()
    assert not world.core.redis.exists(keys.USE.format(uuid=uuid))


@pytest.mark.parametrize(
    "text", ["", "1 2 3", "x 0.1000 1 1", "1 nan 1 1", "1 0.1000 1 99999999999999999", "1 0.1 1 1"]
)
def test_what_a_compromised_gateway_writes_is_ignored(world: World, text: str) -> None:
    uuid, resources = world.active(), world.core.resources
    world.core.redis.hset(keys.RESOURCES.format(uuid=uuid), "0", text)
    assert resources.read(uuid) == {}


def test_an_hour_of_a_session_takes_little_room(world: World) -> None:
    uuid = world.active()
    for minute in range(60):
        world.core.resources.note(uuid, Sample(12.3456, 12_345_678_901, 123_456_789_012), world.now + 60 * minute)
    taken = world.core.redis.memory_usage(keys.RESOURCES.format(uuid=uuid))
    assert taken is None or taken < 4_096
