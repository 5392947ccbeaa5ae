"""The index of restore points and the store agree, after Redis was lost and after a deletion."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from app.core.errors import RestorePointLate
from app.core.redis import keys
from app.core.restore_points.schedule import next_point
from app.core.sessions.model import Status
from app.core.storage.file_store import FileStore
from tests.fakes import raising
from tests.unit.workers.sidecars import sidecars, store_alone
from tests.world import World
from workers.lifecycle.archiving import point_of_now
from workers.lifecycle.stored_points import StoredPoints


@pytest.fixture
def world(saving_world: World) -> World:
    return saving_world


def test_an_index_that_was_lost_is_made_again(world: World) -> None:
    uuid, other = world.active(), world.active("bob")
    names = {store_alone(world, uuid, number) for number in range(3)}
    StoredPoints(world.core).look()
    found = world.core.restore_points.of(uuid)
    assert {each.id for each in found} == names
    assert (found[0].trigger, found[0].files, found[0].message_id) == ("interval", 3, "m1")
    assert world.core.restore_points.of(other) == []


def test_points_of_a_record_that_was_made_again_cost_from_the_look_on(world: World) -> None:
    """By what the store has of them; what the next point finds takes its place."""
    uuid, empty = world.asleep(), world.active("bob")
    session = keys.SESSION.format(uuid=uuid)
    world.core.redis.hdel(session, "points_since", "points_kib")
    store_alone(world, uuid, 1)
    pack = Path(world.core.backup_store.files.root) / uuid / "repository-1" / "data" / "pack"
    pack.parent.mkdir(parents=True)
    pack.write_bytes(bytes(100 * 1_024))
    world.now += 60
    StoredPoints(world.core, world.clock).look()
    assert (world.get(uuid).points_since, 101 <= world.get(uuid).points_kib <= 110) == (world.now, True)
    assert world.get(empty).points_since == 0
    pack.write_bytes(bytes(1))
    before = world.get(uuid)
    StoredPoints(world.core, world.clock).look()
    assert world.get(uuid) == before, "the record knows it already"


def test_what_is_no_longer_stored_leaves_the_index(world: World) -> None:
    uuid = world.active()
    name, other = store_alone(world, uuid, 1), store_alone(world, uuid, 2)
    StoredPoints(world.core).look()
    sidecars(world, uuid).remove(name)
    StoredPoints(world.core).look()
    assert [each.id for each in world.core.restore_points.of(uuid)] == [other]


def test_a_damaged_sidecar_harms_no_other_session(world: World) -> None:
    broken, whole = world.active(), world.active("bob")
    name = store_alone(world, broken, 1)
    store_alone(world, whole, 1)
    path = Path(world.core.backup_store.files.root) / broken / "points" / f"{name}.json"
    *content, last = path.read_bytes()
    path.write_bytes(bytes((*content, last ^ 1)))
    StoredPoints(world.core).look()
    assert world.core.restore_points.of(broken) == []
    assert len(world.core.restore_points.of(whole)) == 1


def test_a_record_that_was_made_again_names_the_newest_point(world: World) -> None:
    """Nothing says that the files as they are now are in it: the next point is made, and a fork waits for it."""
    uuid = world.asleep()
    newest = [store_alone(world, uuid, number) for number in range(3)][-1]
    world.core.redis.flushall()
    world.sweeps.reconcile()
    assert world.get(uuid).point == ""
    StoredPoints(world.core).look()
    assert (world.get(uuid).point, world.get(uuid).point_at) == (newest, 0)
    assert point_of_now(world.core, world.get(uuid)) is None
    assert next_point(world.get(uuid), world.settings, world.now).at <= world.now
    with pytest.raises(RestorePointLate):
        world.core.going_back.newest(world.get(uuid), 0.0)


def test_a_point_that_was_made_meanwhile_stays_named(world: World) -> None:
    uuid = world.active()
    before = world.get(uuid)
    world.core.store.change(uuid, world.now, point="newer")
    store_alone(world, uuid, 1)
    StoredPoints(world.core).index(before)
    assert world.get(uuid).point == "newer"


def test_a_broken_point_is_not_named(world: World) -> None:
    uuid = world.active()
    whole, broken = store_alone(world, uuid, 1), store_alone(world, uuid, 2)
    StoredPoints(world.core).look()
    world.core.restore_points.mark_broken(uuid, [broken])
    world.core.store.change(uuid, world.now, point="")
    StoredPoints(world.core).look()
    assert world.get(uuid).point == whole


def test_points_end_with_their_session(world: World) -> None:
    uuid = world.active()
    store_alone(world, uuid, 1)
    folder = Path(world.core.backup_store.files.root) / uuid
    (folder / "repository-1").mkdir()
    world.core.store.change(uuid, world.now, point="p")
    assert world.delete(uuid).status is Status.TERMINATED
    assert {each.name for each in folder.iterdir()} & {"points", "repository-1"} == set()
    assert world.core.redis.ttl(keys.POINTS.format(uuid=uuid)) != -1


def test_those_that_a_deletion_left_are_deleted_however_late(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store refused it, until the session's record has expired."""
    uuid = world.active()
    store_alone(world, uuid, 1)
    with monkeypatch.context() as store_of_then:
        store_of_then.setattr(FileStore, "remove_folder", raising(OSError(errno.EROFS, "read-only")))
        world.delete(uuid)
        world.sweeps.index()
    assert len(sidecars(world, uuid).ids()) == 1
    assert world.get(uuid).status is Status.TERMINATED
    world.core.redis.delete(keys.SESSION.format(uuid=uuid))
    world.sweeps.index()
    assert sidecars(world, uuid).ids() == []
    assert world.core.restore_points.ending() == []


def test_a_session_that_lives_after_all_keeps_its_points(world: World) -> None:
    uuid = world.active()
    name = store_alone(world, uuid, 1)
    world.core.restore_points.end(uuid, world.now)
    StoredPoints(world.core).finish()
    assert sidecars(world, uuid).ids() == [name]
    assert world.core.restore_points.ending() == []


def test_those_that_came_after_a_deletion_go_too(world: World) -> None:
    uuid = world.active()
    world.delete(uuid)
    store_alone(world, uuid, 1)
    StoredPoints(world.core).look()
    StoredPoints(world.core).finish()
    assert sidecars(world, uuid).ids() == []
