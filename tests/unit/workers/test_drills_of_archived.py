"""Drills of archived sessions: their files are in the store alone, so its older points and backups are all there is."""

from __future__ import annotations

import pytest

from app.api.metrics import read_metrics
from app.core.errors import RetryableError
from app.core.redis import keys, task_queue
from app.core.restore_points.index import RestorePoint
from app.core.restore_points.names import reference
from app.core.sessions.model import Status, Tier
from tests.unit.workers.sidecars import sidecars, store_sidecar
from tests.world import World
from workers.lifecycle.stored_points import StoredPoints

CYCLE = 1_000_000.0


@pytest.fixture
def world(saving_world: World) -> World:
    return saving_world


def archived(world: World, *, backup: bool = False) -> tuple[str, list[RestorePoint]]:
    """An archived session, and its stored points, newest first; maybe with a backup between the last two."""
    uuid = world.active(ttl=3_600.0)
    for _ in range(2):
        world.now += 10
        world.files(uuid)["at"] = str(world.now).encode()
        world.save(uuid)
    world.sleep(uuid)
    if backup:
        world.now += 10
        world.back_up(uuid)
    older = world.core.restore_points.of(uuid)
    world.expire(3_600.0)
    assert world.get(uuid).tier is Tier.ARCHIVED
    points = world.core.restore_points.of(uuid) + older
    for each in points:
        store_sidecar(world, each)
    return uuid, points


def damage(world: World, *points: RestorePoint) -> None:
    world.runtime.damaged.update(reference(each.uuid, each.id) for each in points)


def sweep(world: World, seconds: float = CYCLE) -> list[str]:
    return world.sweep(world.drills.sweep, seconds)


def failures(world: World, uuid: str) -> list[object]:
    return [each["restore_point"] for each in world.told(uuid, "drill_failed")]


def test_the_next_older_one_is_drilled_at_once_and_the_session_wakes_from_it(world: World) -> None:
    """The index had the newest only; the others are read from the store."""
    uuid, (newest, broken_too, oldest) = archived(world)
    damage(world, newest, broken_too)
    assert sweep(world) == [task_queue.DRILL] * 3
    assert failures(world, uuid) == [newest.id, broken_too.id]
    known = {each.id: each for each in world.core.restore_points.of(uuid)}
    assert {each for each in known if known[each].broken} == {newest.id, broken_too.id}
    record = world.get(uuid)
    assert known[oldest.id].proven_at == record.last_proven == world.now
    assert (record.status, record.tier, record.reason) == (Status.SLEEPING, Tier.ARCHIVED, "")
    assert (record.restore_from, record.point) == (reference(uuid, oldest.id), oldest.id)
    assert record.files_of == record.point_at == oldest.created_at, "the status says of when its files are"
    assert sweep(world, CYCLE / 2) == []
    assert sweep(world, CYCLE / 2) == [task_queue.DRILL]
    assert world.get(uuid).last_proven == world.now
    assert len(failures(world, uuid)) == 2

    awake = world.wake(uuid)
    assert (awake.status, awake.files_of) == (Status.ACTIVE, oldest.created_at)
    assert [each["files_of"] for each in world.told(uuid, "files_restored")]
    assert world.files(uuid)["at"] == str(oldest.created_at).encode()


@pytest.mark.parametrize("lost", ["sidecar", "snapshot"])
def test_a_deleted_point_gives_way_to_the_one_before_it(world: World, lost: str) -> None:
    uuid, (newest, older, _) = archived(world)
    del world.runtime.points[reference(uuid, newest.id)]
    if lost == "sidecar":
        sidecars(world, uuid).remove(newest.id)
    sweep(world)
    assert world.get(uuid).restore_from == reference(uuid, older.id)
    assert world.get(uuid).last_proven == world.now


def test_a_newer_backup_is_what_it_wakes_from(world: World) -> None:
    """It is whole, and newer than the point that was proven."""
    uuid, (newest, older, _) = archived(world, backup=True)
    damage(world, newest)
    sweep(world)
    record = world.get(uuid)
    assert record.restore_from == reference(uuid, newest.id)
    assert (world.core.restore_points.get(uuid, older.id) or older).proven_at == record.last_proven == world.now
    backup = world.core.backups.newest_of(uuid)
    assert backup is not None
    awake = world.wake(uuid)
    assert (awake.status, awake.files_of) == (Status.ACTIVE, backup.created_at)


@pytest.mark.parametrize("backup", [True, False])
def test_without_a_whole_one_its_status_says_so_and_it_stays_late_until_it_has_one(world: World, backup: bool) -> None:
    uuid, points = archived(world, backup=backup)
    damage(world, *points)
    sweep(world)
    assert failures(world, uuid) == [each.id for each in points]
    record = world.get(uuid)
    assert (record.status, record.tier, record.reason_code) == (Status.SLEEPING, Tier.ARCHIVED, "restore_points_broken")
    assert ("the backup of" in record.reason) is backup
    assert record.restore_from == reference(uuid, points[0].id), "the store may have its objects back"
    assert sweep(world, CYCLE / 2) == []
    assert read_metrics(world.core, world.now).drills_late == 1

    assert sweep(world, CYCLE / 4) == [task_queue.DRILL] * 3
    assert failures(world, uuid) == [each.id for each in points] * 2, "each is tried again in each cycle"
    world.runtime.damaged.clear()
    assert sweep(world) == [task_queue.DRILL]
    record = world.get(uuid)
    assert (record.reason, record.reason_code, record.last_proven) == ("", "", world.now)
    assert record.restore_from == reference(uuid, points[0].id)
    assert read_metrics(world.core, world.now).drills_late == 0
    assert world.wake(uuid).files_of == 0
    assert world.files(uuid)["at"] == str(points[1].created_at).encode()


def test_all_of_its_points_were_deleted(world: World) -> None:
    uuid, points = archived(world)
    for each in points:
        sidecars(world, uuid).remove(each.id)
        del world.runtime.points[reference(uuid, each.id)]
    for _ in range(2):
        assert sweep(world) == [task_queue.DRILL]
        assert world.get(uuid).reason_code == "restore_points_broken"
        StoredPoints(world.core, world.clock).look()
    assert world.core.restore_points.of(uuid) == []
    assert read_metrics(world.core, world.now).drills_late == 1


def test_once_it_has_its_files_again_it_waits_for_no_cycle(world: World) -> None:
    """Its backup took the place of its points: the next point is proven when it is due."""
    uuid, points = archived(world, backup=True)
    damage(world, *points)
    sweep(world)
    assert world.wake(uuid).reason_code == ""
    world.save(uuid)
    sweep(world, 1)
    assert world.get(uuid).last_proven == world.now


def test_a_wake_in_between_keeps_what_it_began_with(world: World) -> None:
    uuid, (newest, older, _) = archived(world)
    damage(world, newest)
    world.pass_time(CYCLE)
    world.drills.sweep()
    world.tasks.lose_all()
    world.drills.drill(uuid)
    world.sessions.wake(uuid)
    before = world.get(uuid)
    world.tasks.lose_all()
    world.drills.drill(uuid)
    assert (world.core.restore_points.get(uuid, older.id) or newest).proven_at == world.now
    assert world.get(uuid).restore_from == before.restore_from == reference(uuid, newest.id)
    world.core.sessions.resend(world.get(uuid))
    record = world.up(uuid)
    assert (record.status, record.files_of) == (Status.ACTIVE, older.created_at)


def test_a_store_that_goes_away_meanwhile_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid, (newest, older, _) = archived(world)
    damage(world, newest)

    def away(*_: object) -> None:
        raise RetryableError("The store is away.")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(StoredPoints, "index", away)
        sweep(world)
    assert world.core.store.pending(keys.DRILLS, uuid)
    sweep(world, 20)
    assert world.get(uuid).restore_from == reference(uuid, older.id)
