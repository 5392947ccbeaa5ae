"""What is kept of a workspace's use: an hour, in little room, and the disk."""

from __future__ import annotations

import pytest

from app.core.redis import keys
from app.core.sessions.model import Status
from app.core.sessions.resources import KEPT, MIB, Sample, hour, present
from tests.world import World

GIB = 1024 * MIB
BUSY = Sample(0.5, 300 * MIB, 2 * GIB)
AT_REST = Sample(disk_bytes=2 * GIB)


def test_an_hour_is_kept_and_no_more_in_little_room(world: World, uuid: str) -> None:
    resources, key = world.core.resources, keys.RESOURCES.format(uuid=uuid)
    start = world.now
    samples = [Sample(minute + 0.25, 12_345_678_901, 123_456_789_012 + minute) for minute in range(90)]
    for minute, sample in enumerate(samples):
        assert resources.note(uuid, sample, start + 60 * minute)
    known = resources.read(uuid)
    assert known == {int(start // 60) + minute: samples[minute] for minute in range(30, 90)}
    assert KEPT - 5 <= world.core.redis.ttl(key) <= KEPT
    assert [sample for _, sample in hour(known, world.get(uuid), start + 60 * 90)] == samples[30:]
    taken = world.core.redis.memory_usage(key)
    assert taken is None or taken < 4_096


def test_a_second_report_of_a_minute_takes_the_place_of_the_first(world: World, uuid: str) -> None:
    for sample in (Sample(9.0), BUSY):
        world.core.resources.note(uuid, sample, world.now)
    assert list(world.core.resources.read(uuid).values()) == [BUSY]


def test_a_minute_that_was_skipped_is_as_the_one_before_and_a_longer_gap_is_no_use(world: World, uuid: str) -> None:
    """Reports are not as regular as minutes."""
    begun = world.now - world.now % 60
    for minute in (0, 2, 10):
        world.core.resources.note(uuid, BUSY, begun + 60 * minute)
    found = [sample for _, sample in hour(world.core.resources.read(uuid), world.get(uuid), begun + 60 * 12)]
    assert [sample.cpu for sample in found[-12:]] == [0.5] * 5 + [0.0] * 5 + [0.5] * 2
    assert {sample.disk_bytes for sample in found} == {2 * GIB}


def test_one_that_reports_no_more_or_sleeps_uses_its_disk_only_also_when_the_hour_is_forgotten(
    world: World, uuid: str
) -> None:
    resources = world.core.resources
    resources.note(uuid, BUSY, world.now)
    seen = [present(resources.read(uuid), world.get(uuid), world.now + seconds) for seconds in (0, 120, 240)]
    assert seen == [BUSY, BUSY, AT_REST]
    world.sessions.sleep(uuid)
    world.work()
    assert world.get(uuid).status is Status.SLEEPING
    assert present(resources.read(uuid), world.get(uuid), world.now) == AT_REST
    world.core.redis.delete(keys.RESOURCES.format(uuid=uuid))
    record, known = world.get(uuid), resources.read(uuid)
    assert present(known, record, world.now) == AT_REST
    assert {sample for _, sample in hour(known, record, world.now)} == {AT_REST}


def test_nothing_is_noted_of_a_session_that_is_being_deleted(world: World, uuid: str) -> None:
    """Its keys would be left."""
    world.sessions.delete(uuid, backup=False)
    for gone in (uuid, "zzzzzzzz"):
        assert not world.core.resources.note(gone, BUSY, world.now)
    assert list(world.core.redis.scan_iter("session:*:resources")) == []
    world.work()
    assert not world.core.redis.exists(keys.USE.format(uuid=uuid))


@pytest.mark.parametrize(
    "text", ["", "1 2 3", "x 0.1000 1 1", "1 nan 1 1", "1 0.1000 1 99999999999999999", "1 0.1 1 1"]
)
def test_what_a_compromised_gateway_writes_is_ignored(world: World, uuid: str, text: str) -> None:
    world.core.redis.hset(keys.RESOURCES.format(uuid=uuid), "0", text)
    assert world.core.resources.read(uuid) == {}
