"""The archive: unused sessions leave their volume for a restore point that was read back, and come back from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.agent.protocol import ServiceState
from app.core.errors import ArchiveError, IllegalState, RetryableError
from app.core.limit_errors import QuotaExceeded
from app.core.redis import keys, task_queue
from app.core.restore_points.names import reference
from app.core.sessions.idle_policy import EXPIRY_RETRY
from app.core.sessions.model import Signal, Status, Tier, iso
from app.core.sessions.reported_services import ReportedService
from app.core.signal_kinds import SIGNALS
from app.core.storage.archive_keys import new_key
from tests.fakes import raising
from tests.world import World
from workers.lifecycle.archiving import RECHECK, Archive
from workers.restore_points.marker import Marker

TTL = 3_600.0
FILES = {"a.txt": b"kept"}


@pytest.fixture
def world(saving_world: World) -> World:
    return saving_world


def asleep(world: World, user_id: str = "ada", **wanted: object) -> str:
    uuid = world.active(user_id, **{"ttl": TTL, **wanted})
    world.files(uuid).update(FILES)
    world.now += 10
    world.sleep(uuid)
    return uuid


def archived(world: World, user_id: str = "ada", **wanted: object) -> str:
    uuid = asleep(world, user_id, **wanted)
    world.expire(TTL)
    assert world.get(uuid).tier is Tier.ARCHIVED
    return uuid


def marker(world: World, uuid: str) -> Marker | None:
    return Archive(world.core).markers(uuid).read()


def is_hot(world: World, uuid: str) -> bool:
    """It is not archived, and has its volume."""
    return world.get(uuid).tier is Tier.HOT and uuid in world.runtime.workspaces


def test_an_unused_session_is_archived_after_its_ttl(world: World) -> None:
    uuid = asleep(world, labels={"team": "blue"})
    world.expire(TTL - 20)
    assert is_hot(world, uuid)
    world.expire(20)
    record = world.get(uuid)
    assert (record.status, record.tier, record.archived_at) == (Status.SLEEPING, Tier.ARCHIVED, world.now)
    assert uuid not in world.runtime.workspaces
    [point] = world.core.restore_points.of(uuid)
    assert (point.trigger, point.verified_at) == ("archive", world.now)
    assert (record.restore_from, record.provisioned) == (reference(uuid, point.id), False)
    assert (record.settled, record.disk_since) == (record.generation, 0.0)
    kept = marker(world, uuid)
    assert kept is not None
    assert (kept.identity.labels, kept.identity.restore_from) == ({"team": "blue"}, record.restore_from)
    assert world.core.counters.read()["archived"] == 1
    [(_, fed)] = world.core.redis.xrevrange(keys.FEED, count=1)
    assert {name: fed[name] for name in ("uuid", "type", "data")} == {
        "uuid": uuid,
        "type": "phase",
        "data": '{"phase":"archived"}',
    }


def test_a_point_that_was_read_back_is_enough(make_world: Callable[..., World]) -> None:
    world = make_world(archive_key=new_key(), restore_point_check_interval=86_400.0)
    world.core.store.first_sight(world.now)
    uuid = asleep(world)
    world.sweep(world.points.sweep, world.settings.restore_point_check_interval)
    before = world.newest(uuid)
    world.expire()
    record = world.get(uuid)
    assert (record.tier, record.point) == (Tier.ARCHIVED, before.id)


def test_files_that_cannot_be_read_keep_their_volume(world: World) -> None:
    """Their session says why, and is archived once they can be read; until it was awake nobody looks at them again."""
    uuid = asleep(world)
    world.runtime.workspaces[uuid].unreadable.add("a.txt")
    world.expire(TTL)
    record = world.get(uuid)
    assert (record.status, record.tier, record.reason_code) == (Status.SLEEPING, Tier.HOT, "backup_incomplete")
    point = world.newest(uuid)
    assert (point.trigger, point.unreadable) == ("archive", 1)
    world.runtime.calls.clear()
    world.expire(2 * EXPIRY_RETRY)
    assert (world.runtime.calls, world.files(uuid)) == ([], FILES)

    assert world.wake(uuid).reason_code == ""
    world.runtime.workspaces[uuid].unreadable.clear()
    world.now += 10
    world.sleep(uuid)
    world.expire(TTL + EXPIRY_RETRY)
    assert world.get(uuid).tier is Tier.ARCHIVED


@pytest.mark.parametrize("state", ["active", "failed", "asked for a backup"])
def test_only_what_sleeps_and_has_nothing_to_do_is_archived(world: World, state: str) -> None:
    uuid = world.active(ttl=TTL, idle_timeout=0) if state == "active" else asleep(world)
    if state == "failed":
        world.lifecycle.fail(world.get(uuid), "no room")
    world.pass_time(TTL + 20)
    if state == "asked for a backup":
        world.core.store.request_backup(uuid, world.now, world.now + 1e6)
    world.expire()
    assert is_hot(world, uuid)


def test_a_ttl_of_0_keeps_the_volume_and_has_no_end(world: World) -> None:
    uuid = asleep(world, ttl=0)
    world.expire(1e9)
    record = world.get(uuid)
    assert (record.status, record.tier) == (Status.SLEEPING, Tier.HOT)
    assert (record.archives_at, record.expires_at(100.0)) == (0.0, 0.0)


def test_without_an_archive_key_sessions_stay_until_their_end(
    make_world: Callable[..., World], caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world()
    uuid = asleep(world)
    world.expire(TTL)
    assert is_hot(world, uuid)
    assert "nothing is archived without an ARCHIVE_KEY" in caplog.text
    world.expire(world.settings.archive_retention)
    assert world.get(uuid).status is Status.TERMINATED
    assert world.core.backups.newest_of(uuid) is not None


@pytest.mark.parametrize("way", ["wake", "prompt"])
def test_it_wakes_with_its_files_as_the_same_session(world: World, way: str) -> None:
    uuid = archived(world, labels={"team": "blue"})
    before = world.get(uuid)
    if way == "wake":
        world.sessions.wake(uuid)
    else:
        world.sessions.prompt(uuid, "go on")
    record = world.up(uuid)
    assert (record.status, record.tier, record.restore_from) == (Status.ACTIVE, Tier.HOT, "")
    assert world.files(uuid) == FILES
    assert (record.labels, record.created_at, record.files_of) == (before.labels, before.created_at, 0.0)
    assert record.disk_since == world.now
    assert marker(world, uuid) is None
    told = [each["phase"] for each in world.told(uuid, "phase")]
    assert told.index("restoring") < told.index("restored")
    assert world.core.counters.read()["unarchived"] == 1
    assert "volumes_lost" not in world.core.counters.read()
    assert world.told(uuid, "files_restored") == []


def phase(world: World, uuid: str, name: str) -> dict[str, object]:
    """What the session's last phase of this name told, without how long it took."""
    told = [each for each in world.told(uuid, "phase") if each["phase"] == name]
    return {key: value for key, value in told[-1].items() if key not in ("phase", "ms")}


def test_a_restore_tells_what_it_brings(world: World) -> None:
    uuid = archived(world)
    [point] = world.core.restore_points.of(uuid)
    brings = {"files": point.files, "bytes": point.size, "of": iso(point.created_at)}
    seen: list[object] = []
    world.runtime.meanwhile["restore"] = lambda: seen.append(world.get(uuid).brings)
    record = world.wake(uuid)
    assert seen == [brings]
    assert (phase(world, uuid, "restoring"), phase(world, uuid, "restored")) == (brings, brings)
    assert (record.brings, record.restoring) == ({}, {})


def test_a_restore_of_a_backup_tells_what_it_brings(world: World) -> None:
    world.back_up(asleep(world))
    [backup] = world.core.backups.page().items
    made = world.create("bob", restore_from=backup.name)
    world.work()
    brings = {"files": backup.files, "bytes": backup.content_bytes, "of": iso(backup.created_at)}
    assert phase(world, made, "restoring") == brings


def test_a_restore_of_what_no_index_has_tells_only_that_it_runs(world: World) -> None:
    uuid = archived(world)
    world.core.redis.delete(keys.POINTS.format(uuid=uuid))
    assert world.wake(uuid).status is Status.ACTIVE
    assert phase(world, uuid, "restoring") == {}


def test_a_wake_that_was_called_off_tells_nothing_any_more(world: World) -> None:
    uuid = archived(world)
    world.runtime.errors["restore"] = RetryableError("The store is away.")
    world.sessions.wake(uuid)
    with pytest.raises(RetryableError):
        world.work()
    assert world.get(uuid).brings
    record = world.sleep(uuid)
    assert (record.tier, record.brings, record.restoring) == (Tier.ARCHIVED, {}, {})


def test_it_is_archived_again_after_its_ttl(world: World) -> None:
    uuid = archived(world)
    world.pass_time(TTL)
    world.wake(uuid)
    world.sleep(uuid)
    world.expire(TTL - 1)
    assert world.get(uuid).tier is Tier.HOT
    world.expire(1)
    assert world.get(uuid).tier is Tier.ARCHIVED


def test_it_is_archived_again_soon_after_the_last_look_at_its_data(world: World) -> None:
    """That look was at the files of before: those of now have another point."""
    uuid = archived(world, ttl=5.0)
    world.wake(uuid)
    world.files(uuid)["later.txt"] = b"content"
    world.pass_time(2)
    world.sleep(uuid)
    world.expire(10)
    assert world.get(uuid).tier is Tier.ARCHIVED


def test_a_use_while_its_point_is_read_back_keeps_the_volume(world: World) -> None:
    uuid = asleep(world)
    world.pass_time(TTL)
    world.sweeps.expired()
    assert [task for task, _ in world.tasks.sent] == [task_queue.POINT]
    world.wake(uuid)
    world.sessions.sleep(uuid)
    world.expire()
    assert is_hot(world, uuid)
    assert world.core.store.size(keys.ARCHIVING) == 0


@pytest.mark.parametrize("newer", ["wake", "delete", "erase"])
def test_a_newer_intent_wins_over_an_archive(world: World, newer: str) -> None:
    uuid = asleep(world)
    world.pass_time(TTL)
    world.sweeps.expired()
    world.tasks.sent.pop(0)
    world.points.make(uuid)
    world.tasks.lose_all()
    world.sweeps.expired()
    assert [task for task, _ in world.tasks.sent] == [task_queue.ARCHIVE]
    if newer == "wake":
        assert world.wake(uuid).status is Status.ACTIVE
        assert world.files(uuid) == FILES
    else:
        world.sessions.delete(uuid, erase=newer == "erase", backup=newer == "delete")
        world.work()
        assert world.get(uuid).status is Status.TERMINATED
        assert (world.core.backups.newest_of(uuid) is not None) == (newer == "delete")
        assert marker(world, uuid) is None
    assert world.get(uuid).tier is Tier.HOT


class Killed(BaseException):
    """The worker's process ended there."""


def die_at(world: World, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker of the next archive dies before this step takes effect, once."""

    def kill(owner: object, name: str, when: str = "") -> None:
        before = getattr(owner, name)

        def killed(*args: object, **wanted: object) -> object:
            if when and when not in wanted:
                return before(*args, **wanted)
            monkeypatch.setattr(owner, name, before)
            raise Killed

        monkeypatch.setattr(owner, name, killed)

    match step:
        case "mark":
            kill(Archive, "mark")
        case "changed":
            kill(world.core.store, "change", "archived_at")
        case "remove":
            world.runtime.errors["remove"] = Killed()
        case "trimmed":
            kill(world.core.restore_points, "keep_only")
        case "settled":
            kill(world.core.store, "change", "settle")
    with pytest.raises(Killed):
        world.expire()


@pytest.mark.parametrize("then", ["stale", "wake", "delete"])
@pytest.mark.parametrize("step", ["mark", "changed", "remove", "trimmed", "settled"])
def test_a_worker_that_dies_at_any_step_loses_nothing(
    world: World, step: str, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = asleep(world)
    world.pass_time(TTL)
    die_at(world, step, monkeypatch)
    world.core.redis.delete(keys.LEASE.format(uuid=uuid), keys.BACKUP_LEASE.format(uuid=uuid))
    if then == "stale":
        world.pass_time(world.settings.stale_after + 1)
        world.sweeps.stale()
        world.expire()
        assert (world.get(uuid).tier, uuid in world.runtime.workspaces) == (Tier.ARCHIVED, False)
        assert world.get(uuid).settled == world.get(uuid).generation
    if then in ("stale", "wake"):
        record = world.wake(uuid)
        assert (record.status, record.tier) == (Status.ACTIVE, Tier.HOT)
        assert world.files(uuid) == FILES
        assert "volumes_lost" not in world.core.counters.read()
    else:
        record = world.delete(uuid)
        assert record.status is Status.TERMINATED
        assert world.runtime.backups[record.backup] == FILES
        assert marker(world, uuid) is None
    assert uuid not in world.core.store.archived()


def test_what_is_left_of_a_workspace_is_removed(world: World) -> None:
    """A removal that was given up."""
    uuid = asleep(world)
    world.pass_time(TTL)
    for _ in range(20):
        world.runtime.errors["remove"] = RetryableError("The cluster is away.")
        try:
            world.expire()
        except RetryableError:
            world.pass_time(world.settings.stale_after + 60)
            world.sweeps.stale()
    world.runtime.errors.clear()
    world.expire(60)
    world.sweep(world.sweeps.reconcile)
    assert (world.get(uuid).status, world.get(uuid).tier) == (Status.SLEEPING, Tier.ARCHIVED)
    assert uuid not in world.runtime.workspaces


def test_a_store_that_refuses_the_marker_leaves_the_session_asleep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = asleep(world)
    monkeypatch.setattr(Archive, "mark", raising(ArchiveError("The store refuses.")))
    world.expire(TTL)
    record = world.get(uuid)
    assert (record.status, record.tier, record.settled) == (Status.SLEEPING, Tier.HOT, record.generation)
    assert world.core.counters.read()["archives_failed"] == 1
    world.expire(60)
    assert world.core.counters.read()["archives_failed"] == 1, "it is tried again an hour later"
    monkeypatch.undo()
    world.expire(3_600)
    assert world.get(uuid).tier is Tier.ARCHIVED


def test_a_sleep_before_any_file_was_restored_leaves_it_archived(world: World) -> None:
    uuid = archived(world)
    world.sessions.wake(uuid)
    world.sessions.sleep(uuid)
    world.runtime.calls.clear()
    world.work()
    record = world.get(uuid)
    assert (record.status, record.tier, record.settled) == (Status.SLEEPING, Tier.ARCHIVED, record.generation)
    assert world.runtime.calls == []


@pytest.mark.parametrize("backup", [True, False])
def test_a_deleted_one_leaves_a_last_zip_or_nothing(world: World, backup: bool) -> None:
    uuid = archived(world)
    record = world.delete(uuid, backup=backup)
    assert record.status is Status.TERMINATED
    assert (world.runtime.backups.get(record.backup) == FILES) is backup
    assert ("restore", uuid, record.generation) in world.runtime.calls or not backup
    assert uuid not in world.runtime.workspaces
    assert marker(world, uuid) is None
    assert uuid not in world.core.store.archived()


def test_it_ends_with_a_last_zip(world: World) -> None:
    uuid = archived(world)
    world.expire(world.settings.archive_retention - TTL - 20)
    assert world.get(uuid).status is Status.SLEEPING
    world.expire(86_400)
    record = world.get(uuid)
    assert record.status is Status.TERMINATED
    assert world.runtime.backups[record.backup] == FILES


def test_a_broken_point_falls_back_and_says_so(world: World) -> None:
    uuid = asleep(world)
    older = world.newest(uuid)
    world.expire(TTL)
    [point] = world.core.restore_points.of(uuid)
    world.runtime.damaged.add(reference(uuid, point.id))
    record = world.wake(uuid)
    assert (record.status, record.files_of) == (Status.ACTIVE, older.created_at)
    [told] = world.told(uuid, "files_restored")
    assert told["fell_back"] is True
    assert (world.core.restore_points.get(uuid, point.id) or replace(point, broken=True)).broken


def test_points_that_cannot_be_read_keep_the_reference(world: World) -> None:
    uuid = archived(world)
    before = world.get(uuid)
    world.runtime.errors["restore"] = ArchiveError("None of this session's restore points is whole.")
    world.sessions.wake(uuid)
    world.work()
    record = world.get(uuid)
    assert (record.status, record.tier, record.restore_from) == (Status.FAILED, Tier.ARCHIVED, before.restore_from)
    assert world.wake(uuid).status is Status.ACTIVE
    assert world.files(uuid) == FILES


def test_other_loops_leave_it_alone(world: World) -> None:
    uuid = archived(world)
    asleep(world, "bob")
    before = world.get(uuid)
    world.expire(3_000)
    for look in (world.sweeps.reconcile, world.points.sweep, world.sweeps.stale, world.sweeps.idle, world.sweeps.index):
        world.sweep(look)
    assert world.get(uuid) == before
    for each in (keys.POINTS_DUE, keys.POINT_REQUESTS, keys.INTENTS, keys.ARCHIVING, keys.IDLE):
        assert not world.core.store.pending(each, uuid), each
    for call in (world.sessions.request_point, world.sessions.request_backup):
        with pytest.raises(IllegalState, match="is archived"):
            call(uuid)


@pytest.fixture
def world_of_two_at_once(make_world: Callable[..., World]) -> World:
    """Archives no more than two sessions at a time."""
    return make_world(archive_key=new_key(), archives_at_once=2, max_sessions_per_user=100)


def test_at_most_so_many_are_archived_at_a_time(world_of_two_at_once: World) -> None:
    world = world_of_two_at_once
    for _ in range(6):
        asleep(world)
    world.pass_time(TTL)
    world.sweeps.expired()
    assert world.core.store.size(keys.ARCHIVING) == 2
    assert world.core.store.size(keys.POINT_REQUESTS) == 2
    for _ in range(10):
        world.work()
        world.pass_time(60)
        world.sweeps.expired()
        assert world.core.store.size(keys.ARCHIVING) <= 2
    assert len(world.core.store.archived()) == 6


def test_a_place_that_becomes_free_is_soon_taken(world_of_two_at_once: World) -> None:
    """In place of all that wait looking for it at once, a minute later."""
    world = world_of_two_at_once
    for _ in range(30):
        asleep(world)
    world.pass_time(TTL)
    begun = world.now
    while len(world.core.store.archived()) < 30:
        world.sweep(world.sweeps.expired)
        world.pass_time(1)
        assert world.now - begun < 30 / 2 * RECHECK / 3


def test_archived_sessions_do_not_count_against_the_quota(make_world: Callable[..., World]) -> None:
    world = make_world(archive_key=new_key(), max_sessions_per_user=1)
    uuid = archived(world)
    other = world.active("ada")
    with pytest.raises(QuotaExceeded):
        world.create()
    assert world.wake(uuid).status is Status.ACTIVE
    world.delete(other)
    with pytest.raises(QuotaExceeded):
        world.create()


def test_it_takes_less_than_a_kilobyte(world: World) -> None:
    labels = {"team": "blue", "course": "python-101"}
    uuid = world.active("ada.lovelace@example.org", ttl=TTL, labels=labels)
    for _ in range(10):
        world.pass_time(60)
        forgotten = [name for name, kind in SIGNALS.items() if not kind.kept_archived]
        world.core.activity.write(uuid, {name: Signal(world.now, detail="make -j8") for name in forgotten})
        world.core.store.note_services(uuid, [ReportedService("web", 3_000, ServiceState.RUNNING)])
        world.save(uuid)
    assert world.sleep(uuid).services
    world.expire(TTL)
    assert not world.get(uuid).services
    own = [name for name in world.core.redis.scan_iter("*") if uuid in name and not name.startswith("ledger:")]
    sizes = {name: world.core.redis.memory_usage(name) for name in own if not name.endswith(":events")}
    assert world.get(uuid).tier is Tier.ARCHIVED
    assert sum(sizes.values()) < 1_024, sizes
    assert world.core.redis.ttl(keys.EVENTS.format(uuid=uuid)) > 0


def test_after_redis_was_lost_archived_sessions_come_back(world: World) -> None:
    uuids = [archived(world, f"user{n}", labels={"n": str(n)}) for n in range(5)]
    before = {uuid: world.get(uuid) for uuid in uuids}
    for uuid in uuids:
        world.sessions.revoke(uuid)
    world.now += 60
    world.core.redis.flushall()
    world.sweep(world.sweeps.stale)
    for uuid in uuids:
        record = world.get(uuid)
        assert (record.status, record.tier) == (Status.SLEEPING, Tier.ARCHIVED)
        same = ("user_id", "labels", "ttl", "idle_timeout", "size", "created_at", "last_activity", "restore_from")
        assert {name: getattr(record, name) for name in same} == {name: getattr(before[uuid], name) for name in same}
        assert record.epoch > before[uuid].epoch
        assert record.access_epoch > before[uuid].access_epoch + 1
    world.expire(60)
    assert world.core.store.archived() == set(uuids)
    assert world.wake(uuids[0]).status is Status.ACTIVE
    assert world.files(uuids[0]) == FILES
    world.expire(world.settings.archive_retention)
    assert world.get(uuids[1]).status is Status.TERMINATED


def test_a_workspace_comes_before_an_older_marker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = archived(world)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Archive, "unmark", lambda *_: None)
        world.wake(uuid)
    world.files(uuid)["b.txt"] = b"newer"
    world.sleep(uuid)
    assert marker(world, uuid) is not None
    world.now += 120
    world.core.redis.flushall()
    world.sweep(world.sweeps.stale)
    assert world.get(uuid).tier is Tier.HOT
    assert world.files(uuid)["b.txt"] == b"newer"
    world.pass_time(86_400)
    world.sweeps.index()
    assert marker(world, uuid) is None


def test_a_marker_that_a_deletion_left_brings_nothing_back(world: World) -> None:
    uuid = archived(world)
    left = marker(world, uuid)
    world.delete(uuid, backup=False)
    assert left is not None
    Archive(world.core).markers(uuid).write(left)
    world.core.redis.delete(keys.SESSION.format(uuid=uuid), keys.STORE_LOOKED)
    world.sweeps.index()
    assert world.core.store.find([uuid]) == []


def test_a_damaged_marker_harms_no_other_session(world: World, caplog: pytest.LogCaptureFixture) -> None:
    uuids = [archived(world, f"user{n}") for n in range(2)]
    path = Path(Archive(world.core).markers(uuids[0]).path)
    path.write_bytes(path.read_bytes()[:-1])
    world.now += 60
    world.core.redis.flushall()
    world.sweep(world.sweeps.stale)
    assert [record.uuid for record in world.core.store.find(uuids)] == [uuids[1]]
    assert "an archived session is not brought back" in caplog.text
    assert b"user1" not in Path(Archive(world.core).markers(uuids[1]).path).read_bytes()
