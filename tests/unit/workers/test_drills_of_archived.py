"""Drills of archived sessions: their files are in the store alone, so its older points and backups are all there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from app.api.metrics import read_figures
from app.core.errors import RetryableError
from app.core.redis import keys, task_queue
from app.core.restore_points.index import RestorePoint
from app.core.restore_points.names import reference
from app.core.sessions.model import Record, Status, Tier
from app.core.storage.archive_keys import new_key
from tests.unit.workers.sidecars import sidecars, store_sidecar
from tests.world import World
from workers.lifecycle.stored_points import StoredPoints

CYCLE = 1_000_000.0
TTL = 3_600.0


@pytest.fixture
def world(redis_client: redis.Redis, tmp_path: Path) -> World:
    world = World(redis_client, tmp_path, archive_key=new_key(), drill_cycle=CYCLE)
    world.core.store.first_sight(world.now)
    return world


def sweep(world: World, seconds: float = 0.0) -> list[str]:
    """Let time pass, and do what the sweep of drills sends."""
    world.pass_time(seconds)
    world.drills.sweep()
    return world.work()


def saved(world: World, uuid: str) -> None:
    """A point of the files as they are now, which differ from those before."""
    world.now += 10
    world.runtime.workspaces[uuid].files["at"] = str(world.now).encode()
    world.sessions.request_point(uuid)
    world.work()


def archived(world: World, *, backup: bool = False) -> tuple[str, list[RestorePoint]]:
    """An archived session, and its stored points, newest first; maybe with a backup between the last two."""
    uuid = world.active(ttl=TTL)
    saved(world, uuid)
    saved(world, uuid)
    world.sessions.sleep(uuid)
    world.work()
    if backup:
        world.now += 10
        world.sessions.request_backup(uuid)
        world.work()
    points = world.core.restore_points.of(uuid)
    world.pass_time(TTL)
    for _ in range(3):
        world.sweeps.expired()
        world.work()
    assert world.get(uuid).tier is Tier.ARCHIVED
    points = world.core.restore_points.of(uuid) + points
    for each in points:
        store_sidecar(world, each)
    return uuid, points


def damage(world: World, *points: RestorePoint) -> None:
    world.runtime.damaged.update(reference(each.uuid, each.id) for each in points)


def failures(world: World, uuid: str) -> list[object]:
    return [event.data["restore_point"] for event in world.events_of(uuid) if event.type == "drill_failed"]


def came_up(world: World, uuid: str) -> Record:
    world.sessions.wake(uuid)
    world.work()
    world.runtime.become_ready(uuid)
    world.look(uuid)
    return world.get(uuid)


def files(world: World, uuid: str, name: str) -> bytes | None:
    return world.runtime.workspaces[uuid].files.get(name)


def test_the_next_older_one_is_drilled_at_once_and_the_session_wakes_from_it(world: World) -> None:
    """The index had the newest only; the others are read from the store."""
    uuid, (newest, broken_too, oldest) = archived(world)
    damage(world, newest, broken_too)
    assert sweep(world, CYCLE) == [task_queue.DRILL] * 3
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

    awake = came_up(world, uuid)
    assert (awake.status, awake.files_of) == (Status.ACTIVE, oldest.created_at)
    assert [event.data["files_of"] for event in world.events_of(uuid) if event.type == "files_restored"]
    assert files(world, uuid, "at") == str(oldest.created_at).encode()


@pytest.mark.parametrize("lost", ["sidecar", "snapshot"])
def test_a_deleted_point_gives_way_to_the_one_before_it(world: World, lost: str) -> None:
    uuid, (newest, older, _) = archived(world)
    del world.runtime.points[reference(uuid, newest.id)]
    if lost == "sidecar":
        sidecars(world, uuid).remove(newest.id)
    sweep(world, CYCLE)
    assert world.get(uuid).restore_from == reference(uuid, older.id)
    assert world.get(uuid).last_proven == world.now


def test_a_newer_backup_is_what_it_wakes_from(world: World) -> None:
    """It is whole, and newer than the point that was proven."""
    uuid, (newest, older, _) = archived(world, backup=True)
    damage(world, newest)
    sweep(world, CYCLE)
    record = world.get(uuid)
    assert record.restore_from == reference(uuid, newest.id)
    assert (world.core.restore_points.get(uuid, older.id) or older).proven_at == record.last_proven == world.now
    backup = world.core.backups.newest_of(uuid)
    assert backup is not None
    awake = came_up(world, uuid)
    assert (awake.status, awake.files_of) == (Status.ACTIVE, backup.created_at)


@pytest.mark.parametrize("backup", [True, False])
def test_without_a_whole_one_its_status_says_so_and_it_stays_late_until_it_has_one(world: World, backup: bool) -> None:
    uuid, points = archived(world, backup=backup)
    damage(world, *points)
    sweep(world, CYCLE)
    assert failures(world, uuid) == [each.id for each in points]
    record = world.get(uuid)
    assert (record.status, record.tier, record.reason_code) == (Status.SLEEPING, Tier.ARCHIVED, "restore_points_broken")
    assert ("the backup of" in record.reason) is backup
    assert record.restore_from == reference(uuid, points[0].id), "the store may have its objects back"
    assert sweep(world, CYCLE / 2) == []
    assert read_figures(world.core, world.now).drills_late == 1

    assert sweep(world, CYCLE / 4) == [task_queue.DRILL] * 3
    assert failures(world, uuid) == [each.id for each in points] * 2, "each is tried again in each cycle"
    world.runtime.damaged.clear()
    assert sweep(world, CYCLE) == [task_queue.DRILL]
    record = world.get(uuid)
    assert (record.reason, record.reason_code, record.last_proven) == ("", "", world.now)
    assert record.restore_from == reference(uuid, points[0].id)
    assert read_figures(world.core, world.now).drills_late == 0
    assert came_up(world, uuid).files_of == 0
    assert files(world, uuid, "at") == str(points[1].created_at).encode()


def test_all_of_its_points_were_deleted(world: World) -> None:
    uuid, points = archived(world)
    for each in points:
        sidecars(world, uuid).remove(each.id)
        del world.runtime.points[reference(uuid, each.id)]
    for seconds in (CYCLE, CYCLE):
        assert sweep(world, seconds) == [task_queue.DRILL]
        assert world.get(uuid).reason_code == "restore_points_broken"
        StoredPoints(world.core, world.clock).look()
    assert world.core.restore_points.of(uuid) == []
    assert read_figures(world.core, world.now).drills_late == 1


def test_once_it_has_its_files_again_it_waits_for_no_cycle(world: World) -> None:
    """Its backup took the place of its points: the next point is proven when it is due."""
    uuid, points = archived(world, backup=True)
    damage(world, *points)
    sweep(world, CYCLE)
    came_up(world, uuid)
    assert world.get(uuid).reason_code == ""
    world.sessions.request_point(uuid)
    world.work()
    newest = world.core.restore_points.newest(uuid)
    assert newest is not None
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
    record = came_up(world, uuid)
    assert (record.status, record.files_of) == (Status.ACTIVE, older.created_at)


def test_a_store_that_goes_away_meanwhile_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid, (newest, older, _) = archived(world)
    damage(world, newest)

    def away(*_: object) -> None:
        raise RetryableError("The store is away.")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(StoredPoints, "index", away)
        sweep(world, CYCLE)
    assert world.core.store.pending(keys.DRILLS, uuid)
    sweep(world, 20)
    assert world.get(uuid).restore_from == reference(uuid, older.id)
