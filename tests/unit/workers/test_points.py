"""Restore points: when they are asked for, and what becomes of a request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import redis

from app.core.errors import ArchiveError, IllegalState, RestorePointsOff, RetryableError, Superseded
from app.core.redis import keys, task_queue
from app.core.restore_points.schedule import RECHECK, next_point
from app.core.service import NewSession
from app.core.sessions.model import Status
from app.core.storage.archive_keys import new_key
from tests.fake_agent import FakeAgent
from tests.world import World
from workers.lifecycle.wanted import deleted_or_woken
from workers.points import Points
from workers.runtime.base import Check, PointOrder, PointSummary, never


@pytest.fixture
def world(redis_client: redis.Redis, tmp_path: Path) -> World:
    return World(redis_client, tmp_path, archive_key=new_key())


def world_of_full_looks(client: redis.Redis, folder: Path, **settings: float) -> World:
    """A world in which each session is looked at in full once a day, at a time of its own."""
    return World(client, folder, archive_key=new_key(), restore_point_check_interval=86_400.0, **settings)


def saved(world: World, uuid: str) -> list[str]:
    """The triggers of the session's points, oldest first."""
    return [each.trigger for each in reversed(world.core.restore_points.of(uuid))]


def sweep(world: World, seconds: float = 0.0) -> list[str]:
    """Let time pass, and do what the sweep sends."""
    world.now += seconds
    world.points.sweep()
    return world.work()


def asleep_with(world: World, agent: FakeAgent, uuid: str) -> list[str]:
    """Put an active session with this agent to sleep; answers the tasks of that."""
    assert world.core.inbox.agent_here(uuid, agent.address, "pod", f"boot-{world.now}", world.now)
    world.sessions.sleep(uuid)
    return world.work()


def wake(world: World, uuid: str) -> None:
    world.sessions.wake(uuid)
    world.work()
    world.runtime.become_ready(uuid)
    world.look(uuid)


def test_a_sleep_is_followed_by_a_point(world: World) -> None:
    uuid = world.active()
    world.now += 5
    world.sessions.sleep(uuid)
    assert world.work() == [task_queue.SLEEP, task_queue.POINT]
    (point,) = world.core.restore_points.of(uuid)
    record = world.get(uuid)
    assert (point.trigger, record.point, record.point_at) == ("sleep", point.id, world.now)
    told = [event.data for event in world.events_of(uuid) if event.type == "restore_point"]
    assert [(each["status"], each["restore_point"]) for each in told] == [("done", point.id)]
    assert not world.core.store.pending(keys.POINT_REQUESTS, uuid)


def test_without_an_archive_key_there_are_no_points(redis_client: redis.Redis, tmp_path: Path) -> None:
    world = World(redis_client, tmp_path)
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
    world.now += 1
    assert task_queue.POINT in asleep_with(world, agent, uuid)
    for _ in range(100):
        world.now += 10
        wake(world, uuid)
        world.now += 10
        assert asleep_with(world, agent, uuid) == [task_queue.SLEEP]
        assert sweep(world, 1.0) == []
    assert saved(world, uuid) == ["sleep"]
    assert world.get(uuid).point_at == world.now - 1
    agent.fingerprint = "abcdef10"
    wake(world, uuid)
    assert task_queue.POINT in asleep_with(world, agent, uuid)


def test_without_a_fingerprint_files_count_as_changed(world: World, agent: FakeAgent) -> None:
    uuid = world.active()
    for _ in range(2):
        world.now += 10
        assert task_queue.POINT in asleep_with(world, agent, uuid)
        wake(world, uuid)


def test_a_fingerprint_of_files_that_are_in_no_point_saves_nothing(world: World, agent: FakeAgent) -> None:
    """The point after the first sleep fails."""
    agent.fingerprint = "0123456789abcdef"
    uuid = world.active()
    world.now += 1
    world.runtime.errors["make_point"] = ArchiveError("The store refuses.")
    asleep_with(world, agent, uuid)
    wake(world, uuid)
    world.now += 1
    world.core.redis.delete(keys.POINT_REQUESTS)
    assert task_queue.POINT in asleep_with(world, agent, uuid)


def test_the_worker_compares_where_no_agent_does(world: World) -> None:
    """The order has the fingerprint of the newest point; the engine finds that nothing changed."""
    uuid = world.active()
    world.now += 10
    world.sessions.sleep(uuid)
    world.work()
    wake(world, uuid)
    world.now += 10
    world.sessions.sleep(uuid)
    world.work()
    assert saved(world, uuid) == ["sleep"]
    assert world.get(uuid).point_at == world.now


def test_an_awake_session_gets_one_each_interval(world: World) -> None:
    uuid = world.active()
    interval = world.settings.restore_point_interval
    assert sweep(world, interval - 1) == []
    for number in range(3):
        world.runtime.workspaces[uuid].files["a.txt"] = bytes([number])
        assert sweep(world, interval + 1) == [task_queue.POINT]
    assert saved(world, uuid) == ["interval"] * 3


def test_an_interval_of_zero_asks_for_none_while_awake(redis_client: redis.Redis, tmp_path: Path) -> None:
    world = world_of_full_looks(redis_client, tmp_path, restore_point_interval=0.0)
    uuid = world.active()
    world.core.store.change(uuid, world.now, point_checked_at=world.now)
    world.points.sweep()
    looked = next_point(world.get(uuid), world.settings, world.now)
    assert looked.at > world.now
    assert sweep(world, looked.at - world.now - 1) == []
    assert sweep(world, 2 + RECHECK) == [task_queue.POINT], "the full look of the day"


def test_a_full_look_once_a_day_for_a_sleeping_session_too(redis_client: redis.Redis, tmp_path: Path) -> None:
    world = world_of_full_looks(redis_client, tmp_path)
    uuid = world.asleep()
    full = []
    make = world.runtime.make_point

    def noted(uuid: str, order: PointOrder, *, check: Check = never) -> PointSummary:
        full.append(order.full)
        return make(uuid, order, check=check)

    world.runtime.make_point = noted  # type: ignore[method-assign]
    for _ in range(3 * 24):
        sweep(world, 3_600.0)
    assert sum(full) in (3, 4)
    assert all(full)
    assert all(each.verified_at for each in world.core.restore_points.of(uuid))


def test_a_caller_gets_one_at_once(world: World) -> None:
    uuid = world.active()
    world.sessions.request_point(uuid)
    assert world.work() == [task_queue.POINT]
    assert saved(world, uuid) == ["api"]


@pytest.mark.parametrize("state", ["created", "deleted"])
def test_there_is_nothing_to_save_without_files(world: World, state: str) -> None:
    if state == "created":
        uuid = world.sessions.create(NewSession(user_id="ada")).uuid
    else:
        uuid = world.active()
        world.sessions.delete(uuid)
    with pytest.raises(IllegalState):
        world.sessions.request_point(uuid)


def test_a_failed_point_is_tried_again_later_each_time_and_fails_no_session(world: World) -> None:
    uuid = world.asleep()
    for _ in range(12):
        world.runtime.errors["make_point"] = RetryableError("The store is away.")
        world.sessions.ask_for_point(uuid, "sleep")
        world.now += 1000
        world.points.sweep()
        try:
            world.work()
        except RetryableError:
            continue
    record = world.get(uuid)
    assert (record.status, record.point_error) == (Status.SLEEPING, "The store is away.")
    assert world.core.dead_letters.read() == []
    failed = [
        each for each in world.events_of(uuid) if each.type == "restore_point" and each.data["status"] == "failed"
    ]
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

    def deleted(uuid: str, order: PointOrder, *, check: Check = never) -> PointSummary:
        world.sessions.delete(uuid)
        check()
        raise AssertionError("it was not cancelled")

    world.runtime.make_point = deleted  # type: ignore[method-assign]
    world.sessions.request_point(uuid)
    world.work()
    assert world.get(uuid).status is Status.TERMINATED
    assert not world.core.store.pending(keys.POINT_REQUESTS, uuid)
    assert not world.core.store.pending(keys.POINTS_DUE, uuid)
    assert world.core.redis.ttl(keys.POINTS.format(uuid=uuid)) != -1


def test_in_a_cluster_a_wake_ends_the_point_of_a_sleeping_session(world: World) -> None:
    """It needs the volume; the point is asked for again when it is due."""
    uuid = world.asleep()
    cluster = replace(world.settings, runtime="kubernetes")
    world.core.settings = cluster
    world.points = Points(world.core, world.runtime, world.lifecycle, world.clock)
    ended = []

    def woken(uuid: str, order: PointOrder, *, check: Check = never) -> PointSummary:
        world.sessions.wake(uuid)
        try:
            check()
        except Superseded:
            ended.append(uuid)
            raise
        raise AssertionError("it was not ended")

    world.runtime.make_point = woken  # type: ignore[method-assign]
    world.sessions.request_point(uuid)
    world.work()
    assert ended == [uuid]
    assert not world.core.store.pending(keys.POINT_REQUESTS, uuid)


def test_in_a_cluster_a_sleep_and_a_wake_end_the_point_of_an_active_session(world: World) -> None:
    """Its Job holds the volume on the machine that the workspace ran on."""
    uuid = world.active()
    begun = world.get(uuid)
    assert not deleted_or_woken(begun, world.get(uuid))
    world.sessions.sleep(uuid)
    world.work()
    assert not deleted_or_woken(begun, world.get(uuid))
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
    make = world.runtime.make_point

    def overtaken(uuid: str, order: PointOrder, *, check: Check = never) -> PointSummary:
        world.sessions.request_backup(uuid)
        assert world.work() == [task_queue.BACKUP]
        assert world.core.backups.count() == 0
        world.runtime.make_point = make  # type: ignore[method-assign]
        return make(uuid, order, check=check)

    world.runtime.make_point = overtaken  # type: ignore[method-assign]
    world.sessions.request_point(uuid)
    assert world.work() == [task_queue.POINT, task_queue.BACKUP, task_queue.POINT]
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
