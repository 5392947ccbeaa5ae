"""The archive: unused sessions leave their volume for a restore point that was read back, and come back from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import redis

from app.core.errors import ArchiveError, IllegalState, RetryableError
from app.core.limit_errors import QuotaExceeded
from app.core.redis import keys, task_queue
from app.core.restore_points.names import reference
from app.core.service import NewSession
from app.core.sessions.idle_policy import EXPIRY_RETRY
from app.core.sessions.model import Record, Signal, Status, Tier, iso
from app.core.signal_kinds import SIGNALS
from app.core.storage.archive_keys import new_key
from tests.fakes import FakeRuntime
from tests.world import World
from workers.lifecycle.archiving import RECHECK, Archive
from workers.restore_points.marker import Marker

TTL = 3_600.0
FILES = {"a.txt": b"kept"}


@pytest.fixture
def world(redis_client: redis.Redis, tmp_path: Path) -> World:
    world = World(redis_client, tmp_path, archive_key=new_key())
    # The points of the fake are not in the store, with which a new Redis is compared.
    world.core.store.first_sight(world.now)
    return world


def sweep(world: World, seconds: float = 0.0) -> None:
    """Let time pass, and let the sweep go as far as it gets."""
    world.pass_time(seconds)
    for _ in range(3):
        world.sweeps.expired()
        world.work()


def asleep(world: World, user_id: str = "ada", **wanted: object) -> str:
    uuid = world.active(user_id, **{"ttl": TTL, **wanted})
    world.runtime.workspaces[uuid].files |= FILES
    world.now += 10
    world.sessions.sleep(uuid)
    world.work()
    return uuid


def archived(world: World, user_id: str = "ada", **wanted: object) -> str:
    uuid = asleep(world, user_id, **wanted)
    sweep(world, TTL)
    assert world.get(uuid).tier is Tier.ARCHIVED
    return uuid


def marker(world: World, uuid: str) -> Marker | None:
    return Archive(world.core).markers(uuid).read()


def came_up(world: World, uuid: str) -> Record:
    world.work()
    world.runtime.become_ready(uuid)
    world.look(uuid)
    return world.get(uuid)


def phases_told(world: World, uuid: str) -> list[str]:
    return [str(event.data["phase"]) for event in world.events_of(uuid) if event.type == "phase"]


def fed(world: World) -> dict[str, str]:
    """The newest event that is told to those who follow all sessions."""
    [(_, entry)] = world.core.redis.xrevrange(keys.FEED, count=1)
    return {name: entry[name] for name in ("uuid", "type", "data")}


def test_an_unused_session_is_archived_after_its_ttl(world: World) -> None:
    uuid = asleep(world, labels={"team": "blue"})
    sweep(world, TTL - 20)
    assert (world.get(uuid).tier, uuid in world.runtime.workspaces) == (Tier.HOT, True)
    sweep(world, 20)
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
    assert fed(world) == {"uuid": uuid, "type": "phase", "data": '{"phase":"archived"}'}


def test_a_point_that_was_read_back_is_enough(redis_client: redis.Redis, tmp_path: Path) -> None:
    world = World(redis_client, tmp_path, archive_key=new_key(), restore_point_check_interval=86_400.0)
    world.core.store.first_sight(world.now)
    uuid = asleep(world)
    world.pass_time(world.settings.restore_point_check_interval)
    world.points.sweep()
    world.work()
    before = world.core.restore_points.newest(uuid)
    sweep(world)
    record = world.get(uuid)
    assert before is not None
    assert (record.tier, record.point) == (Tier.ARCHIVED, before.id)


def test_files_that_cannot_be_read_keep_their_volume(world: World) -> None:
    """Their session says why, and is archived once they can be read; until it was awake nobody looks at them again."""
    uuid = asleep(world)
    world.runtime.workspaces[uuid].unreadable.add("a.txt")
    sweep(world, TTL)
    record = world.get(uuid)
    assert (record.status, record.tier, record.reason_code) == (Status.SLEEPING, Tier.HOT, "backup_incomplete")
    point = world.core.restore_points.newest(uuid)
    assert point is not None and (point.trigger, point.unreadable) == ("archive", 1)
    world.runtime.calls.clear()
    sweep(world, 2 * EXPIRY_RETRY)
    assert (world.runtime.calls, world.runtime.workspaces[uuid].files) == ([], FILES)

    world.sessions.wake(uuid)
    assert came_up(world, uuid).reason_code == ""
    world.runtime.workspaces[uuid].unreadable.clear()
    world.now += 10
    world.sessions.sleep(uuid)
    world.work()
    sweep(world, TTL + EXPIRY_RETRY)
    assert world.get(uuid).tier is Tier.ARCHIVED


@pytest.mark.parametrize("state", ["active", "failed", "asked for a backup"])
def test_only_what_sleeps_and_has_nothing_to_do_is_archived(world: World, state: str) -> None:
    uuid = world.active(ttl=TTL, idle_timeout=0) if state == "active" else asleep(world)
    if state == "failed":
        world.lifecycle.fail(world.get(uuid), "no room")
    world.pass_time(TTL + 20)
    if state == "asked for a backup":
        world.core.store.request_backup(uuid, world.now, world.now + 1e6)
    sweep(world)
    assert (world.get(uuid).tier, uuid in world.runtime.workspaces) == (Tier.HOT, True)


def test_a_ttl_of_0_keeps_the_volume_and_has_no_end(world: World) -> None:
    uuid = asleep(world, ttl=0)
    sweep(world, 1e9)
    record = world.get(uuid)
    assert (record.status, record.tier) == (Status.SLEEPING, Tier.HOT)
    assert (record.archives_at, record.expires_at(100.0)) == (0.0, 0.0)


def test_without_an_archive_key_sessions_stay_until_their_end(
    redis_client: redis.Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(redis_client, tmp_path)
    uuid = asleep(world)
    sweep(world, TTL)
    assert (world.get(uuid).tier, uuid in world.runtime.workspaces) == (Tier.HOT, True)
    assert "nothing is archived without an ARCHIVE_KEY" in caplog.text
    sweep(world, world.settings.archive_retention)
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
    record = came_up(world, uuid)
    assert (record.status, record.tier, record.restore_from) == (Status.ACTIVE, Tier.HOT, "")
    assert world.runtime.workspaces[uuid].files == FILES
    assert (record.labels, record.created_at, record.files_of) == (before.labels, before.created_at, 0.0)
    assert record.disk_since == world.now
    assert marker(world, uuid) is None
    told = phases_told(world, uuid)
    assert told.index("restoring") < told.index("restored")
    assert world.core.counters.read()["unarchived"] == 1
    assert "volumes_lost" not in world.core.counters.read()
    assert not [event for event in world.events_of(uuid) if event.type == "files_restored"]


def phase(world: World, uuid: str, name: str) -> dict[str, object]:
    """What the session's last phase of this name told, without how long it took."""
    told = [event.data for event in world.events_of(uuid) if event.type == "phase" and event.data["phase"] == name]
    return {key: value for key, value in told[-1].items() if key not in ("phase", "ms")}


def seen_in_restore(monkeypatch: pytest.MonkeyPatch, world: World, uuid: str) -> list[Record]:
    """The session's record as it is while its files are restored."""
    seen, restore = [], FakeRuntime.restore

    def look(self: FakeRuntime, *args: object, **wanted: object) -> object:
        seen.append(world.get(uuid))
        return restore(self, *args, **wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeRuntime, "restore", look)
    return seen


def test_a_restore_tells_what_it_brings(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = archived(world)
    [point] = world.core.restore_points.of(uuid)
    brings = {"files": point.files, "bytes": point.size, "of": iso(point.created_at)}
    seen = seen_in_restore(monkeypatch, world, uuid)
    world.sessions.wake(uuid)
    record = came_up(world, uuid)
    assert [each.brings for each in seen] == [brings]
    assert (phase(world, uuid, "restoring"), phase(world, uuid, "restored")) == (brings, brings)
    assert (record.brings, record.restoring) == ({}, {})


def test_a_restore_of_a_backup_tells_what_it_brings(world: World) -> None:
    world.sessions.request_backup(uuid := asleep(world))
    world.work()
    [backup] = world.core.backups.page(uuid=uuid).items
    made = world.sessions.create(NewSession(user_id="bob", restore_from=backup.name))
    world.work()
    brings = {"files": backup.files, "bytes": backup.content_bytes, "of": iso(backup.created_at)}
    assert phase(world, made.uuid, "restoring") == brings


def test_a_restore_of_what_no_index_has_tells_only_that_it_runs(world: World) -> None:
    uuid = archived(world)
    world.core.redis.delete(keys.POINTS.format(uuid=uuid))
    world.sessions.wake(uuid)
    assert came_up(world, uuid).status is Status.ACTIVE
    assert phase(world, uuid, "restoring") == {}


def test_a_wake_that_was_called_off_tells_nothing_any_more(world: World) -> None:
    uuid = archived(world)
    world.runtime.errors["restore"] = RetryableError("The store is away.")
    world.sessions.wake(uuid)
    with pytest.raises(RetryableError):
        world.work()
    assert world.get(uuid).brings
    world.sessions.sleep(uuid)
    world.work()
    record = world.get(uuid)
    assert (record.tier, record.brings, record.restoring) == (Tier.ARCHIVED, {}, {})


def test_it_is_archived_again_after_its_ttl(world: World) -> None:
    uuid = archived(world)
    world.pass_time(TTL)
    world.sessions.wake(uuid)
    came_up(world, uuid)
    world.sessions.sleep(uuid)
    world.work()
    sweep(world, TTL - 1)
    assert world.get(uuid).tier is Tier.HOT
    sweep(world, 1)
    assert world.get(uuid).tier is Tier.ARCHIVED


def test_it_is_archived_again_soon_after_the_last_look_at_its_data(world: World) -> None:
    """That look was at the files of before: those of now have another point."""
    uuid = archived(world, ttl=5.0)
    world.sessions.wake(uuid)
    came_up(world, uuid)
    world.runtime.workspaces[uuid].files |= {"later.txt": b"content"}
    world.pass_time(2)
    world.sessions.sleep(uuid)
    world.work()
    sweep(world, 10)
    assert world.get(uuid).tier is Tier.ARCHIVED


def test_a_use_while_its_point_is_read_back_keeps_the_volume(world: World) -> None:
    uuid = asleep(world)
    world.pass_time(TTL)
    world.sweeps.expired()
    assert [task for task, _ in world.tasks.sent] == [task_queue.POINT]
    world.sessions.wake(uuid)
    came_up(world, uuid)
    world.sessions.sleep(uuid)
    sweep(world)
    assert (world.get(uuid).tier, uuid in world.runtime.workspaces) == (Tier.HOT, True)
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
        world.sessions.wake(uuid)
        assert came_up(world, uuid).status is Status.ACTIVE
        assert world.runtime.workspaces[uuid].files == FILES
    else:
        world.sessions.delete(uuid, erase=newer == "erase", backup=newer == "delete")
        world.work()
        assert world.get(uuid).status is Status.TERMINATED
        assert (world.core.backups.newest_of(uuid) is not None) == (newer == "delete")
        assert marker(world, uuid) is None
    assert world.get(uuid).tier is Tier.HOT


STEPS = ("mark", "changed", "remove", "trimmed", "settled")
"""Where the worker dies, in order."""


def die_at(world: World, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker of the next archive dies before this step takes effect, once."""

    class Killed(BaseException):
        pass

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
    for _ in range(3):
        world.sweeps.expired()
        try:
            world.work()
        except Killed:
            return
    raise AssertionError(f"nobody came to {step}")


@pytest.mark.parametrize("then", ["stale", "wake", "delete"])
@pytest.mark.parametrize("step", STEPS)
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
        sweep(world)
        assert (world.get(uuid).tier, uuid in world.runtime.workspaces) == (Tier.ARCHIVED, False)
        assert world.get(uuid).settled == world.get(uuid).generation
        world.sessions.wake(uuid)
    if then in ("stale", "wake"):
        world.sessions.wake(uuid)
        record = came_up(world, uuid)
        assert (record.status, record.tier) == (Status.ACTIVE, Tier.HOT)
        assert world.runtime.workspaces[uuid].files == FILES
        assert "volumes_lost" not in world.core.counters.read()
    else:
        world.sessions.delete(uuid)
        world.work()
        record = world.get(uuid)
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
            sweep(world)
        except RetryableError:
            world.pass_time(world.settings.stale_after + 60)
            world.sweeps.stale()
    world.runtime.errors.clear()
    sweep(world, 60)
    world.sweeps.reconcile()
    world.work()
    assert (world.get(uuid).status, world.get(uuid).tier) == (Status.SLEEPING, Tier.ARCHIVED)
    assert uuid not in world.runtime.workspaces


def test_a_store_that_refuses_the_marker_leaves_the_session_asleep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = asleep(world)

    def refuse(*_: object) -> None:
        raise ArchiveError("The store refuses.")

    monkeypatch.setattr(Archive, "mark", refuse)
    sweep(world, TTL)
    record = world.get(uuid)
    assert (record.status, record.tier, record.settled) == (Status.SLEEPING, Tier.HOT, record.generation)
    assert world.core.counters.read()["archives_failed"] == 1
    sweep(world, 60)
    assert world.core.counters.read()["archives_failed"] == 1, "it is tried again an hour later"
    monkeypatch.undo()
    sweep(world, 3_600)
    assert world.get(uuid).tier is Tier.ARCHIVED


def test_a_sleep_before_any_file_was_restored_leaves_it_archived(world: World) -> None:
    uuid = archived(world)
    world.sessions.wake(uuid)
    world.sessions.sleep(uuid)
    calls = len(world.runtime.calls)
    world.work()
    record = world.get(uuid)
    assert (record.status, record.tier, record.settled) == (Status.SLEEPING, Tier.ARCHIVED, record.generation)
    assert [name for name, *_ in world.runtime.calls[calls:]] == []


@pytest.mark.parametrize("backup", [True, False])
def test_a_deleted_one_leaves_a_last_zip_or_nothing(world: World, backup: bool) -> None:
    uuid = archived(world)
    world.sessions.delete(uuid, backup=backup)
    world.work()
    record = world.get(uuid)
    assert record.status is Status.TERMINATED
    assert (world.runtime.backups.get(record.backup) == FILES) is backup
    assert ("restore", uuid, record.generation) in world.runtime.calls or not backup
    assert uuid not in world.runtime.workspaces
    assert marker(world, uuid) is None
    assert uuid not in world.core.store.archived()


def test_it_ends_with_a_last_zip(world: World) -> None:
    uuid = archived(world)
    sweep(world, world.settings.archive_retention - TTL - 20)
    assert world.get(uuid).status is Status.SLEEPING
    sweep(world, 86_400)
    record = world.get(uuid)
    assert record.status is Status.TERMINATED
    assert world.runtime.backups[record.backup] == FILES


def test_a_broken_point_falls_back_and_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = archived(world)
    point = world.core.restore_points.of(uuid)[0]
    restore = FakeRuntime.restore

    def older(self: FakeRuntime, *args: object, **wanted: object) -> object:
        restored = restore(self, *args, **wanted)  # type: ignore[arg-type]
        return restored and replace(restored, id="p00000000000000a", created_at=1_000.0, fell_back=True)

    monkeypatch.setattr(FakeRuntime, "restore", older)
    world.sessions.wake(uuid)
    record = came_up(world, uuid)
    assert (record.status, record.files_of) == (Status.ACTIVE, 1_000.0)
    [told] = [event.data for event in world.events_of(uuid) if event.type == "files_restored"]
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
    world.sessions.wake(uuid)
    assert came_up(world, uuid).status is Status.ACTIVE
    assert world.runtime.workspaces[uuid].files == FILES


def test_other_loops_leave_it_alone(world: World) -> None:
    uuid = archived(world)
    asleep(world, "bob")
    before = world.get(uuid)
    sweep(world, 3_000)
    for look in (world.sweeps.reconcile, world.points.sweep, world.sweeps.stale, world.sweeps.idle, world.sweeps.index):
        look()
        world.work()
    assert world.get(uuid) == before
    for each in (keys.POINTS_DUE, keys.POINT_REQUESTS, keys.INTENTS, keys.ARCHIVING, keys.IDLE):
        assert not world.core.store.pending(each, uuid), each
    for call in (world.sessions.request_point, world.sessions.request_backup):
        with pytest.raises(IllegalState, match="is archived"):
            call(uuid)


def test_at_most_so_many_are_archived_at_a_time(redis_client: redis.Redis, tmp_path: Path) -> None:
    world = World(redis_client, tmp_path, archive_key=new_key(), archives_at_once=2, max_sessions_per_user=100)
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


def test_a_place_that_becomes_free_is_soon_taken(redis_client: redis.Redis, tmp_path: Path) -> None:
    """In place of all that wait looking for it at once, a minute later."""
    world = World(redis_client, tmp_path, archive_key=new_key(), archives_at_once=2, max_sessions_per_user=100)
    for _ in range(30):
        asleep(world)
    world.pass_time(TTL)
    begun = world.now
    while len(world.core.store.archived()) < 30:
        world.sweeps.expired()
        world.work()
        world.pass_time(1)
        assert world.now - begun < 30 / 2 * RECHECK / 3


def test_archived_sessions_do_not_count_against_the_quota(redis_client: redis.Redis, tmp_path: Path) -> None:
    world = World(redis_client, tmp_path, archive_key=new_key(), max_sessions_per_user=1)
    uuid = archived(world)
    other = world.active("ada")
    with pytest.raises(QuotaExceeded):
        world.sessions.create(NewSession(user_id="ada"))
    world.sessions.wake(uuid)
    assert came_up(world, uuid).status is Status.ACTIVE
    world.sessions.delete(other)
    world.work()
    with pytest.raises(QuotaExceeded):
        world.sessions.create(NewSession(user_id="ada"))


def test_it_takes_less_than_a_kilobyte(world: World) -> None:
    labels = {"team": "blue", "course": "python-101"}
    uuid = world.active("ada.lovelace@example.org", ttl=TTL, labels=labels)
    for _ in range(10):
        world.pass_time(60)
        forgotten = [name for name, kind in SIGNALS.items() if not kind.kept_archived]
        world.core.activity.write(uuid, {name: Signal(world.now, detail="make -j8") for name in forgotten})
        world.sessions.request_point(uuid)
        world.work()
    world.sessions.sleep(uuid)
    world.work()
    sweep(world, TTL)
    own = [name for name in world.core.redis.scan_iter("*") if uuid in name and not name.startswith("ledger:")]
    sizes = {name: world.core.redis.memory_usage(name) for name in own if not name.endswith(":events")}
    assert world.get(uuid).tier is Tier.ARCHIVED
    assert sum(sizes.values()) < 1_024, sizes
    assert world.core.redis.ttl(keys.EVENTS.format(uuid=uuid)) > 0


def lose_redis(world: World) -> None:
    world.core.redis.flushall()
    world.sweeps.stale()
    world.work()


def test_after_redis_was_lost_archived_sessions_come_back(world: World) -> None:
    uuids = [archived(world, f"user{n}", labels={"n": str(n)}) for n in range(5)]
    before = {uuid: world.get(uuid) for uuid in uuids}
    for uuid in uuids:
        world.sessions.revoke(uuid)
    world.now += 60
    lose_redis(world)
    for uuid in uuids:
        record = world.get(uuid)
        assert (record.status, record.tier) == (Status.SLEEPING, Tier.ARCHIVED)
        same = ("user_id", "labels", "ttl", "idle_timeout", "size", "created_at", "last_activity", "restore_from")
        assert {name: getattr(record, name) for name in same} == {name: getattr(before[uuid], name) for name in same}
        assert record.epoch > before[uuid].epoch
        assert record.access_epoch > before[uuid].access_epoch + 1
    sweep(world, 60)
    assert world.core.store.archived() == set(uuids)
    world.sessions.wake(uuids[0])
    assert came_up(world, uuids[0]).status is Status.ACTIVE
    assert world.runtime.workspaces[uuids[0]].files == FILES
    sweep(world, world.settings.archive_retention)
    assert world.get(uuids[1]).status is Status.TERMINATED


def test_a_workspace_comes_before_an_older_marker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = archived(world)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Archive, "unmark", lambda *_: None)
        world.sessions.wake(uuid)
        came_up(world, uuid)
    world.runtime.workspaces[uuid].files["b.txt"] = b"newer"
    world.sessions.sleep(uuid)
    world.work()
    assert marker(world, uuid) is not None
    world.now += 120
    lose_redis(world)
    assert world.get(uuid).tier is Tier.HOT
    assert world.runtime.workspaces[uuid].files["b.txt"] == b"newer"
    world.pass_time(86_400)
    world.sweeps.index()
    assert marker(world, uuid) is None


def test_a_marker_that_a_deletion_left_brings_nothing_back(world: World) -> None:
    uuid = archived(world)
    left = marker(world, uuid)
    world.sessions.delete(uuid, backup=False)
    world.work()
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
    lose_redis(world)
    assert [record.uuid for record in world.core.store.find(uuids)] == [uuids[1]]
    assert "an archived session is not brought back" in caplog.text
    assert b"user1" not in Path(Archive(world.core).markers(uuids[1]).path).read_bytes()
