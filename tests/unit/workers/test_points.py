"""Restore points: when they are asked for, and what becomes of a request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.core.errors import ArchiveError, IllegalState, RestorePointsOff, RetryableError
from app.core.redis import keys, task_queue
from app.core.restore_points.schedule import RECHECK, next_point
from app.core.sessions.model import Status
from app.core.storage.archive_keys import new_key
from tests.fake_agent import FakeAgent
from tests.world import World
from workers.lifecycle.wanted import deleted_or_woken
from workers.points import Points
from workers.runtime.base import Check, PointOrder, PointSummary, never


@pytest.fixture
def world(saving_world: World) -> World:
    return saving_world


@pytest.fixture
def world_of_full_looks(make_world: Callable[..., World]) -> Callable[..., World]:
    """Makes a world in which each session is looked at in full once a day, at a time of its own."""
    return lambda **more: make_world(archive_key=new_key(), restore_point_check_interval=86_400.0, **more)


def saved(world: World, uuid: str) -> list[str]:
    """The triggers of the session's points, oldest first."""
    return [each.trigger for each in reversed(world.core.restore_points.of(uuid))]


def sweep(world: World, seconds: float = 0.0) -> list[str]:
    """Let time pass, and do what the sweep sends."""
    return world.sweep(world.points.sweep, seconds)


def asleep_with(world: World, agent: FakeAgent, uuid: str) -> list[str]:
    """Put an active session with this agent to sleep, some time after; answers the tasks of that."""
    world.now += 10
    world.agent_calls(uuid, agent, f"boot-{world.now}")
    world.sessions.sleep(uuid)
    return world.work()


def test_a_sleep_is_followed_by_a_point(world: World) -> None:
    uuid = world.active()
    world.now += 5
    world.sessions.sleep(uuid)
    assert world.work() == [task_queue.SLEEP, task_queue.POINT]
    (point,) = world.core.restore_points.of(uuid)
    record = world.get(uuid)
    assert (point.trigger, record.point, record.point_at) == ("sleep", point.id, world.now)
    told = world.told(uuid, "restore_point")
    assert [(each["status"], each["restore_point"]) for each in told] == [("done", point.id)]
    assert not world.core.store.pending(keys.POINT_REQUESTS, uuid)


def test_without_an_archive_key_there_are_no_points(make_world: Callable[..., World]) -> None:
    world = make_world()
    uuid = world.asleep()
    assert sweep(world, 1e6) == []
    assert world.core.restore_points.of(uuid) == []
    with pytest.raises(RestorePointsOff):
        world.sessions.request_point(uuid)


@pytest.mark.slow
def test_a_hundred_sleeps_of_unchanged_files_ask_for_one_point(world: World, agent: FakeAgent) -> None:
    """The agent's fingerprint at its leave-taking tells that nothing changed."""
    agent.fingerprint = "0123456789abcdef"
    uuid = world.active()
    assert task_queue.POINT in asleep_with(world, agent, uuid)
    for _ in range(100):
        world.now += 10
        world.wake(uuid)
        assert asleep_with(world, agent, uuid) == [task_queue.SLEEP]
        assert sweep(world, 1.0) == []
    assert saved(world, uuid) == ["sleep"]
    assert world.get(uuid).point_at == world.now - 1
    agent.fingerprint = "abcdef10"
    world.wake(uuid)
    assert task_queue.POINT in asleep_with(world, agent, uuid)


def test_without_a_fingerprint_files_count_as_changed(world: World, agent: FakeAgent) -> None:
    uuid = world.active()
    for _ in range(2):
        assert task_queue.POINT in asleep_with(world, agent, uuid)
        world.wake(uuid)


def test_a_fingerprint_of_files_that_are_in_no_point_saves_nothing(world: World, agent: FakeAgent) -> None:
    """The point after the first sleep fails."""
    agent.fingerprint = "0123456789abcdef"
    uuid = world.active()
    world.runtime.errors["make_point"] = ArchiveError("The store refuses.")
    asleep_with(world, agent, uuid)
    world.wake(uuid)
    world.core.redis.delete(keys.POINT_REQUESTS)
    assert task_queue.POINT in asleep_with(world, agent, uuid)


def test_the_worker_compares_where_no_agent_does(world: World) -> None:
    """The order has the fingerprint of the newest point; the engine finds that nothing changed."""
    uuid = world.active()
    world.now += 10
    world.sleep(uuid)
    world.wake(uuid)
    world.now += 10
    world.sleep(uuid)
    assert saved(world, uuid) == ["sleep"]
    assert world.get(uuid).point_at == world.now


def test_an_awake_session_gets_one_each_interval(world: World) -> None:
    uuid = world.active()
    interval = world.settings.restore_point_interval
    assert sweep(world, interval - 1) == []
    for number in range(3):
        world.files(uuid)["a.txt"] = bytes([number])
        assert sweep(world, interval + 1) == [task_queue.POINT]
    assert saved(world, uuid) == ["interval"] * 3


def test_an_interval_of_zero_asks_for_none_while_awake(world_of_full_looks: Callable[..., World]) -> None:
    world = world_of_full_looks(restore_point_interval=0.0)
    uuid = world.active()
    world.core.store.change(uuid, world.now, point_checked_at=world.now)
    world.points.sweep()
    looked = next_point(world.get(uuid), world.settings, world.now)
    assert looked.at > world.now
    assert sweep(world, looked.at - world.now - 1) == []
    assert sweep(world, 2 + RECHECK) == [task_queue.POINT], "the full look of the day"


def test_a_full_look_once_a_day_for_a_sleeping_session_too(world_of_full_looks: Callable[..., World]) -> None:
    world = world_of_full_looks()
    uuid = world.asleep()
    world.runtime.orders.clear()
    for _ in range(3 * 24):
        sweep(world, 3_600.0)
    assert len(world.runtime.orders) in (3, 4)
    assert all(each.full for each in world.runtime.orders)
    assert all(each.verified_at for each in world.core.restore_points.of(uuid))


def test_there_is_nothing_to_save_without_files(world: World) -> None:
    created, deleted = world.create(), world.active()
    world.sessions.delete(deleted)
    for uuid in (created, deleted):
        with pytest.raises(IllegalState):
            world.sessions.request_point(uuid)


def test_a_failed_point_is_tried_again_later_each_time_and_fails_no_session(world: World) -> None:
    uuid = world.asleep()
    for _ in range(12):
        world.runtime.errors["make_point"] = RetryableError("The store is away.")
        world.sessions.ask_for_point(uuid, "sleep")
        with contextlib.suppress(RetryableError):
            sweep(world, 1000)
    record = world.get(uuid)
    assert (record.status, record.point_error) == (Status.SLEEPING, "The store is away.")
    assert world.core.dead_letters.read() == []
    failed = [each for each in world.told(uuid, "restore_point") if each["status"] == "failed"]
    assert len(failed) == 1, "the same failure is no event again"
    world.runtime.errors.clear()
    sweep(world, 1000)
    assert world.get(uuid).point_error == ""
    assert saved(world, uuid)


def test_a_lost_message_is_sent_again(world: World) -> None:
    uuid = world.active()
    world.sessions.request_point(uuid)
    world.tasks.lose_all()
    assert sweep(world) == []
    assert task_queue.POINT in sweep(world, world.settings.stale_after + 1)
    assert saved(world, uuid) == ["api"]


def test_a_point_waits_for_a_free_slot(world: World) -> None:
    """Without a message more: the end of another point, or the sweep, sends it."""
    uuid = world.active()
    slots = [keys.POINT_SLOT.format(number=each) for each in range(world.settings.restore_points_at_once)]
    for each in slots:
        world.core.redis.set(each, "another worker")
    world.sessions.request_point(uuid)
    assert world.work() == [task_queue.POINT]
    assert sweep(world, 1) == []
    world.core.redis.delete(slots[-1])
    assert sweep(world, 1) == [task_queue.POINT]
    assert saved(world, uuid) == ["api"]


def test_the_end_of_a_point_sends_the_next_that_waits(world: World) -> None:
    first, second = world.active(), world.active("bob")
    for each in (first, second):
        world.sessions.request_point(each)
    world.tasks.sent.pop()
    world.core.store.defer(keys.POINT_REQUESTS, second, world.now)
    assert world.work() == [task_queue.POINT, task_queue.POINT]
    assert saved(world, second) == ["api"]


def test_a_deletion_cancels_a_point(world: World) -> None:
    uuid = world.active()
    world.runtime.meanwhile["make_point"] = lambda: world.sessions.delete(uuid)
    world.sessions.request_point(uuid)
    world.work()
    assert world.runtime.points == {}, "it was cancelled"
    assert world.get(uuid).status is Status.TERMINATED
    assert not world.core.store.pending(keys.POINT_REQUESTS, uuid)
    assert not world.core.store.pending(keys.POINTS_DUE, uuid)
    assert world.core.redis.ttl(keys.POINTS.format(uuid=uuid)) != -1


def test_in_a_cluster_a_wake_ends_the_point_of_a_sleeping_session(world: World) -> None:
    """It needs the volume; the point is asked for again when it is due."""
    uuid = world.asleep()
    world.files(uuid)["new.txt"] = b"not saved yet"
    before = dict(world.runtime.points)
    world.core.settings = replace(world.settings, runtime="kubernetes")
    world.points = Points(world.core, world.runtime, world.lifecycle, world.clock)
    world.runtime.meanwhile["make_point"] = lambda: world.sessions.wake(uuid)
    world.sessions.request_point(uuid)
    world.work()
    assert world.runtime.points == before, "it was ended"
    assert (world.runtime.meanwhile, world.core.store.pending(keys.POINT_REQUESTS, uuid)) == ({}, False)


def test_in_a_cluster_a_sleep_and_a_wake_end_the_point_of_an_active_session(world: World) -> None:
    """Its Job holds the volume on the machine that the workspace ran on."""
    uuid = world.active()
    begun = world.get(uuid)
    assert not deleted_or_woken(begun, world.get(uuid))
    assert not deleted_or_woken(begun, world.sleep(uuid))
    world.sessions.wake(uuid)
    assert deleted_or_woken(begun, world.get(uuid))


def test_what_a_check_finds_broken_is_marked_and_saved_again(world: World) -> None:
    uuid = world.asleep()
    (before,) = world.core.restore_points.of(uuid)
    make = world.runtime.make_point

    def broken(uuid: str, order: PointOrder, *, check: Check = never) -> PointSummary:
        world.runtime.make_point = make  # type: ignore[method-assign]
        return replace(make(uuid, order, check=check), checked=True, broken=(before.id,))

    world.runtime.make_point = broken  # type: ignore[method-assign]
    world.sessions.request_point(uuid)
    world.work()
    marked = {each.id: each.broken for each in world.core.restore_points.of(uuid)}
    assert marked[before.id]
    assert world.get(uuid).point_at == 0
    assert sweep(world, 1) == [task_queue.POINT]
    assert world.get(uuid).point_at > 0


def test_a_backup_asked_for_meanwhile_follows_at_once(world: World) -> None:
    uuid = world.active()
    meanwhile: list[object] = []

    def overtaken() -> None:
        world.sessions.request_backup(uuid)
        meanwhile.extend((world.work(), world.core.backups.count()))

    world.runtime.meanwhile["make_point"] = overtaken
    world.sessions.request_point(uuid)
    assert world.work() == [task_queue.POINT, task_queue.BACKUP, task_queue.POINT]
    assert meanwhile == [[task_queue.BACKUP], 0]
    assert world.core.backups.count() == 1


def test_sessions_whose_due_times_are_lost_get_their_first(world: World) -> None:
    """As after a loss of Redis, when their records are there again."""
    uuid = world.asleep()
    world.core.redis.delete(keys.POINTS_DUE, keys.POINT_REQUESTS, keys.POINTS.format(uuid=uuid))
    world.core.store.change(uuid, world.now, point="", point_at=0.0)
    world.sweeps.reconcile()
    assert sweep(world, 1) == [task_queue.POINT]
    assert len(saved(world, uuid)) == 1


def test_a_sleeping_session_stays_below_two_kilobytes(world: World, agent: FakeAgent) -> None:
    agent.fingerprint = "0123456789abcdef" * 2
    uuid = world.active()
    asleep_with(world, agent, uuid)
    key = keys.SESSION.format(uuid=uuid)
    assert world.core.redis.memory_usage(key) < 2048
