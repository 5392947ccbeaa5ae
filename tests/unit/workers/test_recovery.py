"""The recovery of sessions when Redis and their volumes are lost: they come back from the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.errors import RetryableError
from app.core.redis import keys
from app.core.restore_points.index import RestorePoint
from app.core.restore_points.names import reference
from app.core.restore_points.recovery import Recovery
from app.core.sessions.model import Status, Tier
from app.core.storage.archive_keys import ArchiveKeys, new_key
from tests.fakes import FakeWorkspace
from tests.unit.workers.sidecars import sidecars, store_sidecar
from tests.world import World
from workers.lifecycle.archiving import Archive
from workers.lifecycle.stored_points import StoredPoints
from workers.restore_points.sidecar import Sidecar, Sidecars

FILES = {"a.txt": b"saved"}


@pytest.fixture
def world(saving_world: World) -> World:
    return saving_world


def with_point(world: World, user_id: str = "ada") -> str:
    """A session with a restore point, which the fake runtime keeps, and the store has the sidecar of."""
    uuid = world.active(user_id, labels={"course": "python-101"}, ttl=7_200.0)
    world.files(uuid).update(FILES)
    save(world, uuid)
    return uuid


def save(world: World, uuid: str) -> RestorePoint:
    world.now += 10
    point = world.save(uuid)
    store_sidecar(world, point)
    return point


def with_newer_point(world: World, user_id: str = "ada") -> tuple[str, RestorePoint, RestorePoint]:
    """The same with another point, of files that the first had not; answers its uuid and both."""
    uuid = with_point(world, user_id)
    first = world.newest(uuid)
    world.files(uuid)["b.txt"] = b"newer"
    return uuid, first, save(world, uuid)


def lose_all(world: World, *uuids: str) -> dict[str, FakeWorkspace]:
    """Redis is empty, and no volume is there any more; answers what was lost."""
    world.core.redis.flushall()
    world.now += 60
    lost = {uuid: world.runtime.workspaces.pop(uuid) for uuid in uuids}
    world.sweep(world.sweeps.stale)
    return lost


def recover(world: World, *, dry_run: bool = False) -> Recovery:
    world.core.recoveries.request(world.now, dry_run=dry_run)
    world.sweeps.index()
    last = world.core.recoveries.last()
    assert last is not None
    return last


def test_nothing_comes_back_unasked(world: World) -> None:
    """The volumes may be only out of sight."""
    uuid = with_point(world)
    lose_all(world, uuid)
    world.pass_time(86_400)
    world.sweeps.index()
    assert world.core.store.find([uuid]) == []


def test_each_session_comes_back_with_its_newest_files(world: World) -> None:
    first, _, newest = with_newer_point(world)
    uuids = [first, with_point(world, "bob"), with_point(world, "eve")]
    before = {uuid: world.get(uuid) for uuid in uuids}
    for uuid in uuids:
        world.sessions.revoke(uuid)
    lose_all(world, *uuids)
    done = recover(world)
    assert (done.ended_at, done.found, done.recovered, done.damaged) == (world.now, 3, 3, 0)
    for uuid in uuids:
        record = world.get(uuid)
        same = ("user_id", "labels", "ttl", "idle_timeout", "size", "created_at")
        assert {name: getattr(record, name) for name in same} == {name: getattr(before[uuid], name) for name in same}
        assert (record.status, record.tier, record.last_activity) == (Status.SLEEPING, Tier.ARCHIVED, world.now)
        assert record.epoch > before[uuid].epoch
        assert record.access_epoch > before[uuid].access_epoch + 1
    record = world.get(first)
    assert (record.restore_from, record.files_of) == (reference(first, newest.id), newest.created_at)
    assert world.wake(first).status is Status.ACTIVE
    assert world.files(first) == FILES | {"b.txt": b"newer"}
    assert [each["fell_back"] for each in world.told(first, "files_restored")] == [False]
    assert world.get(first).files_of == newest.created_at


def test_a_dry_run_only_counts(world: World) -> None:
    uuids = [with_point(world, f"user{number}") for number in range(2)]
    lose_all(world, *uuids)
    done = recover(world, dry_run=True)
    assert (done.found, done.recovered, done.damaged) == (2, 0, 0)
    assert world.core.store.find(uuids) == []
    assert [Archive(world.core).markers(uuid).read() for uuid in uuids] == [None, None]


def test_they_come_back_by_themselves_if_redis_is_lost_again(world: World) -> None:
    uuid = with_point(world)
    lose_all(world, uuid)
    recover(world)
    files_of = world.get(uuid).files_of
    lose_all(world)
    assert (world.get(uuid).tier, world.get(uuid).files_of) == (Tier.ARCHIVED, files_of)


def test_what_exists_and_what_was_deleted_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sleeps, one with a workspace and no record yet, and one whose points can't be deleted now."""
    monkeypatch.setattr(StoredPoints, "finish", lambda _: None)
    kept, seen, deleted = (with_point(world, f"user{number}") for number in range(3))
    lost = lose_all(world, kept, seen, deleted)
    world.runtime.workspaces |= {kept: lost[kept], seen: lost[seen]}
    world.sweeps.reconcile()
    world.core.redis.delete(keys.SESSION.format(uuid=seen))
    world.core.restore_points.end(deleted, world.now)
    before = world.get(kept)
    assert recover(world, dry_run=True).found == 0
    assert recover(world).recovered == 0
    assert (world.get(kept), world.core.store.find([seen, deleted])) == (before, [])


@pytest.mark.parametrize("damage", ["a cut", "another key"])
def test_damaged_points_are_counted_and_harm_no_other_session(
    world: World, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    broken, whole = with_point(world), with_point(world, "bob")
    for path in Path(sidecars(world, broken).folder).iterdir():
        content = path.read_bytes()
        other = ArchiveKeys(new_key()).session(broken).encrypt(b"{}", path.name)
        path.write_bytes(other if damage == "another key" else content[:-1])
    lose_all(world, broken, whole)
    done = recover(world)
    assert (done.found, done.recovered, done.damaged) == (2, 1, 1)
    assert [record.uuid for record in world.core.store.find([broken, whole])] == [whole]
    assert [record.uuid for record in caplog.records if "is not recovered" in record.message] == [broken]  # type: ignore[attr-defined]


def test_an_older_marker_gives_way_to_a_newer_point(world: World) -> None:
    """It was left when the session had its volume again."""
    uuid, first, newest = with_newer_point(world)
    assert newest.id != first.id
    record = world.get(uuid)
    lose_all(world, uuid)
    Archive(world.core).mark(record, first, world.now - 1)
    recover(world)
    assert world.get(uuid).restore_from == reference(uuid, newest.id)


def test_a_stale_marker_is_left_to_the_recovery(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It could not be removed when its session woke, and the volume is out of sight. Another session comes back."""
    uuid, first, newest = with_newer_point(world)
    other = with_point(world, "bob")
    for name, point in ((uuid, first), (other, world.newest(other))):
        Archive(world.core).mark(world.get(name), point, world.now)
    lose_all(world, uuid, other)
    world.pass_time(86_400)
    world.sweeps.index()
    assert [record.uuid for record in world.core.store.find([uuid, other])] == [other]
    told = "it has restore points that are newer than its marker"
    assert [told in record.message for record in caplog.records].count(True) == 1
    recover(world)
    assert world.get(uuid).restore_from == reference(uuid, newest.id)


def test_a_store_that_is_away_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuids = [with_point(world, f"user{number}") for number in range(2)]
    lose_all(world, *uuids)
    calls: list[str] = []

    def read(self: Sidecars) -> dict[str, Sidecar | None]:
        calls.append(self.keys.uuid)
        if len(calls) > 1:
            raise RetryableError("The store is away.")
        return real(self)

    real = Sidecars.read
    with monkeypatch.context() as away:
        away.setattr(Sidecars, "read", read)
        going_on = recover(world)
    assert (going_on.ended_at, going_on.recovered, going_on.error) == (0.0, 1, "The store is away.")
    world.sweeps.index()
    done = world.core.recoveries.last()
    assert done is not None
    assert (done.found, done.recovered, done.error) == (2, 2, "")
    assert len(world.core.store.find(uuids)) == 2


def test_one_that_is_asked_for_meanwhile_is_carried_out_too(world: World) -> None:
    first = world.core.recoveries.request(world.now, dry_run=True)
    world.now += 1
    second = world.core.recoveries.request(world.now, dry_run=False)
    world.core.recoveries.end(first, world.now, found=1, damaged=0)
    assert world.core.recoveries.waiting() == second


def test_without_an_archive_key_it_says_why(make_world: Callable[..., World]) -> None:
    done = recover(make_world())
    assert (done.ended_at, "ARCHIVE_KEY" in done.error) == (0.0, True)


def lose_and_find(world: World, *, running: bool = False) -> str:
    """The session was recovered while its volume, which is newer, was only out of sight; answers its uuid."""
    uuid = with_point(world)
    if not running:
        world.sleep(uuid)
    [lost] = lose_all(world, uuid).values()
    recover(world)
    lost.files["b.txt"] = b"newer"
    world.runtime.workspaces[uuid] = lost
    return uuid


@pytest.mark.parametrize("running", [False, True])
def test_a_volume_that_was_only_out_of_sight_is_taken_back(world: World, running: bool) -> None:
    """Its files are newer. A workspace that runs is adopted."""
    uuid = lose_and_find(world, running=running)
    world.sweeps.reconcile()
    record = world.up(uuid) if running else world.get(uuid)
    assert (record.status, record.tier) == (Status.ACTIVE if running else Status.SLEEPING, Tier.HOT)
    assert (record.provisioned, record.restore_from, record.files_of) == (True, "", 0.0)
    assert world.files(uuid) == FILES | {"b.txt": b"newer"}
    world.sweep(world.sweeps.reconcile)
    assert uuid in world.runtime.workspaces


def test_a_wake_before_that_is_noticed_keeps_its_files_too(world: World) -> None:
    uuid = lose_and_find(world)
    record = world.wake(uuid)
    assert (record.status, record.tier, record.files_of) == (Status.ACTIVE, Tier.HOT, 0.0)
    assert world.files(uuid) == FILES | {"b.txt": b"newer"}


def test_one_that_is_archived_again_is_an_archived_session_as_any(world: World) -> None:
    uuid = with_point(world)
    lose_all(world, uuid)
    recover(world)
    world.wake(uuid)
    world.sleep(uuid)
    world.expire(7_200)
    record = world.get(uuid)
    assert (record.tier, record.files_of) == (Tier.ARCHIVED, 0.0)
