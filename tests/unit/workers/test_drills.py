"""Drills: who is drilled when, and what becomes of what they find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.api.metrics import read_metrics
from app.core.errors import NoSpace, RetryableError
from app.core.redis import keys, task_queue
from app.core.restore_points.names import reference
from app.core.sessions.model import Status
from app.core.storage.archive_keys import new_key
from tests.world import World
from workers.lifecycle.stored_points import StoredPoints
from workers.runtime.base import Check, Proof, ProofOrder, never


@pytest.fixture
def world(saving_world: World) -> World:
    return saving_world


def sweep(world: World, seconds: float = 0.0) -> list[str]:
    """Let time pass, and do what the sweep of drills sends."""
    return world.sweep(world.drills.sweep, seconds)


def drilled(world: World) -> list[str]:
    """The sessions that were drilled so far, in order."""
    return [uuid for call, uuid, _ in world.runtime.calls if call == "prove_point"]


def break_newest(world: World, uuid: str) -> str:
    """Break the session's newest point in the store; answers its id."""
    point = world.newest(uuid)
    world.runtime.damaged.add(reference(uuid, point.id))
    return point.id


@pytest.mark.parametrize("state", ["awake", "asleep"])
def test_each_session_is_proven_within_its_cycle(world: World, state: str) -> None:
    uuid, cycle = world.asleep(), world.settings.drill_cycle
    if state == "awake":
        world.wake(uuid)
    assert sweep(world, cycle / 2) == []
    assert world.get(uuid).last_proven == 0
    assert sweep(world, cycle / 4 + 100) == [task_queue.DRILL]
    (point,) = world.core.restore_points.of(uuid)
    assert world.get(uuid).last_proven == point.proven_at == world.now
    assert sweep(world, cycle / 2) == []
    assert world.core.counters.read()["drills_proven"] == 1
    assert world.core.store.size(keys.DRILL_REQUESTS) == 0


def test_the_oldest_goes_first_and_no_more_at_once_than_needed(world: World) -> None:
    uuids = [world.asleep(f"user{number}") for number in range(3)]
    for number, each in enumerate(uuids):
        world.core.store.schedule(keys.DRILLS, each, world.now - world.settings.drill_cycle - number)
    for count in range(1, 4):
        assert sweep(world, 1) == [task_queue.DRILL]
        assert drilled(world) == uuids[::-1][:count]


def test_a_cycle_of_zero_drills_nothing(make_world: Callable[..., World]) -> None:
    world = make_world(archive_key=new_key(), drill_cycle=0.0)
    world.asleep()
    assert sweep(world, 1e9) == []
    assert world.core.store.size(keys.DRILLS) == 0


def test_a_broken_point_is_marked_told_counted_and_replaced_at_once(world: World) -> None:
    """The next point goes to a fresh repository although nothing changed, and is proven soon."""
    uuid = world.asleep()
    broken = break_newest(world, uuid)
    world.runtime.orders.clear()
    assert sweep(world, world.settings.drill_cycle) == [task_queue.DRILL, task_queue.POINT]
    newest, old = world.core.restore_points.of(uuid)
    assert (old.id, old.broken, newest.broken) == (broken, True, False)
    assert [(each.fresh, each.broken, each.fingerprint) for each in world.runtime.orders] == [(True, (broken,), "")]
    (told,) = world.told(uuid, "drill_failed")
    assert told == {"restore_point": broken, "reason": "It can't be restored.", "differences": []}
    counted = world.core.counters.read()
    assert (counted["drills_failed"], counted["points_broken"]) == (1, 1)
    assert world.get(uuid).status is Status.SLEEPING
    sweep(world, 1)
    assert world.newest(uuid).proven_at == world.get(uuid).last_proven == world.now
    assert len(world.told(uuid, "drill_failed")) == 1


def test_a_few_files_that_differ_are_named_in_the_event_and_none_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    uuid = world.asleep()

    def different(uuid: str, order: ProofOrder, *, check: Check = never) -> Proof:
        return Proof(id=order.id, different=7, differences=("app/diary: another content",), files=9)

    world.runtime.prove_point = different  # type: ignore[method-assign]
    sweep(world, world.settings.drill_cycle)
    (told,) = world.told(uuid, "drill_failed")
    assert told["reason"] == "7 files did not come back as they were."
    assert told["differences"] == ["app/diary: another content"]
    assert "diary" not in caplog.text


def test_while_a_broken_point_waits_for_the_next_no_older_one_is_drilled(world: World) -> None:
    uuid = world.asleep()
    break_newest(world, uuid)
    world.runtime.errors["make_point"] = RetryableError("The store is full.")
    with pytest.raises(RetryableError):
        sweep(world, world.settings.drill_cycle)
    world.tasks.lose_all()
    world.core.store.defer(keys.POINT_REQUESTS, uuid, world.now + world.settings.drill_cycle)
    assert sweep(world, 1_000) == [task_queue.DRILL]
    assert drilled(world) == [uuid]
    assert world.core.store.deadline(keys.DRILLS, uuid) is not None, "it stays due"


@pytest.mark.parametrize("error", [RetryableError("The store is away."), NoSpace("No room for a drill.")])
def test_what_says_nothing_about_the_point_is_tried_again_later(world: World, error: Exception) -> None:
    uuid = world.asleep()
    world.runtime.errors["prove_point"] = error
    assert sweep(world, world.settings.drill_cycle) == [task_queue.DRILL]
    (point,) = world.core.restore_points.of(uuid)
    assert (point.broken, point.proven_at, world.told(uuid, "drill_failed")) == (False, 0.0, [])
    assert world.core.counters.read()["drills_put_off"] == 1
    assert sweep(world, 1) == []
    assert sweep(world, 20) == [task_queue.DRILL]
    assert world.get(uuid).last_proven == world.now
    assert world.get(uuid).drill_tries == 0


def test_a_store_that_is_not_the_one_of_before_breaks_no_point(world: World) -> None:
    """Such as the empty folder of a disk that is not mounted."""
    uuid = world.asleep()
    break_newest(world, uuid)
    store = Path(world.core.backup_store.files.root)
    aside = store.with_name("aside")
    store.rename(aside)
    store.mkdir()
    assert sweep(world, world.settings.drill_cycle) == [task_queue.DRILL]
    assert not world.newest(uuid).broken
    assert world.told(uuid, "drill_failed") == []
    store.rmdir()
    aside.rename(store)
    sweep(world, 20)
    assert len(world.told(uuid, "drill_failed")) == 1


def test_a_lost_message_and_a_dead_worker_are_made_up_for(world: World) -> None:
    uuid = world.asleep()
    world.pass_time(world.settings.drill_cycle)
    world.drills.sweep()
    world.tasks.lose_all()
    assert sweep(world, world.settings.stale_after + 1) == [task_queue.DRILL]
    assert drilled(world) == [uuid]


def test_a_drill_gives_way_to_a_point_of_its_session(world: World) -> None:
    uuid = world.active()
    world.save(uuid)
    world.runtime.meanwhile["prove_point"] = lambda: world.sessions.request_point(uuid)
    done = sweep(world, world.settings.drill_cycle)
    assert done[0] == task_queue.DRILL
    assert task_queue.POINT in done
    assert (drilled(world), world.get(uuid).last_proven) == ([uuid], 0), "it gave way"
    assert not world.core.store.pending(keys.POINT_REQUESTS, uuid), "the point was made"
    assert world.core.store.pending(keys.DRILL_REQUESTS, uuid), "the drill is tried again"


def test_points_that_wait_for_a_slot_go_first_and_one_slot_is_theirs(world: World) -> None:
    first = world.asleep()
    slots = [keys.POINT_SLOT.format(number=each) for each in range(world.settings.restore_points_at_once)]
    for each in slots[1:]:
        world.core.redis.set(each, "another worker")
    assert sweep(world, world.settings.drill_cycle) == []
    assert world.core.store.pending(keys.DRILL_REQUESTS, first)
    world.core.redis.delete(*slots)
    for number in range(len(slots)):
        world.core.redis.zadd(keys.POINT_REQUESTS, {f"waiting{number}": world.now - 1})
    assert sweep(world, 1) == []
    world.core.redis.delete(keys.POINT_REQUESTS)
    assert sweep(world, 1) == [task_queue.DRILL]


def test_a_deleted_session_is_due_for_nothing(world: World) -> None:
    world.delete(world.asleep())
    assert sweep(world, world.settings.drill_cycle) == []
    assert (drilled(world), world.core.store.size(keys.DRILLS)) == ([], 0)


def test_late_drills_are_counted(world: World) -> None:
    world.asleep()
    cycle = world.settings.drill_cycle
    assert read_metrics(world.core, world.now + cycle).drills_late == 0
    late = read_metrics(world.core, world.now + 2 * cycle + 1)
    assert late.drills_late == 1
    assert late.drills_oldest == pytest.approx(2 * cycle + 1)


def test_the_times_of_proofs_are_made_again_from_the_index(world: World) -> None:
    """Where they were lost, or points are older than drills."""
    uuid = world.asleep()
    world.core.redis.delete(keys.DRILLS)
    folder = Path(world.settings.data_dir) / "backups" / uuid / "points"
    folder.mkdir(parents=True)
    point = world.newest(uuid)
    (folder / f"{point.id}.json").write_text("{}")
    StoredPoints(world.core, world.clock).look()
    assert world.core.store.deadline(keys.DRILLS, uuid) == pytest.approx(point.created_at, abs=1)
