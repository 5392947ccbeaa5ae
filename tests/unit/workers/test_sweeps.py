"""Sweeps and the watcher: idle, expiry, retention, and what comes back after Redis was lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from app.core.backups.store import BackupStore, backup_name
from app.core.errors import NoSpace, RetryableError
from app.core.redis import keys, task_queue
from app.core.sessions.model import Identity, Status
from app.core.storage.archive_keys import NO_KEYS, ArchiveKeys, Keys, SessionKeys, new_key
from tests.fakes import raising
from tests.world import World
from workers.archive import write_backup
from workers.runtime.base import Snapshot
from workers.sweeps import Sweeps


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """Sessions end after their time to live: nothing is archived without a key."""
    return make_world(archive_retention=1.0)


def test_an_unused_session_sleeps_at_its_deadline(world: World) -> None:
    uuid = world.active(idle_timeout=60)
    world.now += 59
    world.sweeps.idle()
    assert world.get(uuid).status is Status.ACTIVE
    assert world.sweep(world.sweeps.idle, 1) == [task_queue.WARN, task_queue.SLEEP]
    assert world.get(uuid).status is Status.SLEEPING


def test_a_used_session_gets_a_new_deadline(world: World) -> None:
    uuid = world.active(idle_timeout=60)
    world.now += 50
    world.use(uuid)
    world.now += 20
    world.sweeps.idle()
    assert world.get(uuid).status is Status.ACTIVE
    assert world.core.redis.zscore(keys.IDLE, uuid) == pytest.approx(world.now + 20), "when its sleep is announced"
    world.now += 40
    world.sweeps.idle()
    assert world.get(uuid).status is Status.SLEEPING


def test_a_use_at_the_very_moment_of_the_sweep_wins(world: World) -> None:
    """The sweep has looked and decided; before it writes, the session is used."""
    uuid = world.active(idle_timeout=60)
    world.now += 61
    seen = world.get(uuid)
    due = world.core.store.due

    def used_after_the_look(*args: object) -> list[object]:
        records = due(*args)  # type: ignore[arg-type]
        world.use(uuid)
        return records  # type: ignore[return-value]

    world.core.store.due = used_after_the_look  # type: ignore[method-assign, assignment]
    world.sweeps.idle()
    assert world.get(uuid).status is Status.ACTIVE
    assert world.get(uuid).generation == seen.generation


def test_two_idle_sweeps_at_once_make_one_intent(world: World) -> None:
    uuid = world.active(idle_timeout=60)
    before = world.get(uuid)
    world.now += 61
    world.sweeps.idle()
    world.sweeps.idle()
    assert world.get(uuid).generation == before.generation + 1


def test_a_session_with_idle_timeout_0_never_sleeps_by_itself(world: World) -> None:
    uuid = world.active(idle_timeout=0)
    world.now += 1e8
    world.sweeps.idle()
    assert world.get(uuid).status is Status.ACTIVE


def test_an_expired_session_is_backed_up_and_torn_down(world: World) -> None:
    uuid = world.asleep(ttl=3_600)
    world.sweep(world.sweeps.expired, 3_601)
    assert world.get(uuid).status is Status.TERMINATED
    assert world.core.backups.newest_of(uuid) is not None
    world.sweeps.expired()
    assert world.core.redis.zcard(keys.EXPIRY) == 0


def test_a_use_moves_the_expiry(world: World) -> None:
    uuid = world.asleep(ttl=3_600)
    world.pass_time(3_000)
    world.use(uuid)
    world.pass_time(1_000)
    world.sweeps.expired()
    assert world.get(uuid).status is Status.SLEEPING


def test_a_failed_teardown_of_an_expired_session_is_tried_again_less_and_less_often(world: World) -> None:
    """A file that can't be read today can't be read in an hour."""
    uuid = world.asleep(ttl=3_600)
    tries = []
    for _ in range(24 * 5):
        world.runtime.errors["backup"] = NoSpace("The disk is full.")
        world.sweep(world.sweeps.expired, 3_600)
        if not world.runtime.errors:
            tries.append(world.now)
    assert world.get(uuid).status is Status.FAILED
    assert [round((after - before) / 3_600) for before, after in pairwise(tries)] == [1, 2, 4, 8, 16, 24, 24, 24]
    world.runtime.errors.clear()
    world.sweep(world.sweeps.expired, 24 * 3_600)
    assert world.get(uuid).status is Status.TERMINATED


@pytest.mark.parametrize("use", ["wake", "prompt"])
def test_a_use_ends_the_patience_with_an_expiry_that_failed(world: World, use: str) -> None:
    uuid = world.asleep(ttl=3_600)
    for pause in (3_600, 3_600, 7_200):
        world.runtime.errors["backup"] = NoSpace("The disk is full.")
        world.sweep(world.sweeps.expired, pause)
    assert world.get(uuid).expiry_tries == 3
    if use == "wake":
        world.sessions.wake(uuid)
    else:
        world.sessions.prompt(uuid, "hello")
    assert world.get(uuid).expiry_tries == 0


def test_after_redis_was_lost_every_session_comes_back(world: World) -> None:
    """Its user, settings and files, running or asleep, from what stands beside the volumes."""
    up = world.active("ada", labels={"team": "blue"})
    down = world.asleep("bob", ttl=3_600)
    for _ in range(3):
        world.sessions.revoke(down)
    world.core.redis.flushall()
    assert task_queue.RECONCILE in world.sweep(world.sweeps.stale)
    assert world.get(down).status is Status.SLEEPING
    assert (world.get(down).user_id, world.get(down).ttl) == ("bob", 3_600)
    assert world.get(down).access_epoch > 3, "a pass that was taken back must not be good again"
    assert world.get(up).status is Status.WAKING
    world.look(up)
    assert world.get(up).status is Status.ACTIVE
    assert world.get(up).labels == {"team": "blue"}
    world.sessions.wake(down)
    world.work()
    assert world.runtime.workspaces[down].running


def test_reconcile_leaves_known_sessions_alone(world: World) -> None:
    uuid = world.active()
    before = world.get(uuid)
    world.sweeps.reconcile()
    assert world.get(uuid) == before
    assert world.work() == []


def test_a_session_whose_files_are_gone_is_failed(world: World) -> None:
    lost = world.asleep()
    world.asleep("bob")
    del world.runtime.workspaces[lost]
    world.sweeps.reconcile()
    assert world.get(lost).status is Status.FAILED
    assert "it has no backup" in world.get(lost).reason


def test_an_empty_runtime_is_doubted(world: World) -> None:
    """A volume that isn't mounted must not mark every session failed."""
    uuid = world.asleep()
    del world.runtime.workspaces[uuid]
    world.sweeps.reconcile()
    assert world.get(uuid).status is Status.SLEEPING


def test_old_backups_go_but_never_a_living_sessions_newest(world: World) -> None:
    living, dead = world.asleep(), world.asleep("bob")
    for _ in range(2):
        world.back_up(living)
        world.now += 60
    world.delete(dead)
    newest = world.core.backups.newest_of(living)
    world.pass_time(world.settings.backup_retention + 1)
    world.sweeps.retention()
    assert world.core.backups.count() == 1
    assert world.core.backups.newest_of(living) == newest


def test_a_backup_that_is_being_restored_stays(world: World) -> None:
    """Deleting it would leave the new session without its files."""
    name = world.delete(world.asleep()).backup
    world.pass_time(world.settings.backup_retention + 1)
    world.sessions.restore(name)
    world.sweeps.retention()
    assert world.core.backups.count() == 1


def test_a_retention_of_0_keeps_backups_for_ever(make_world: Callable[..., World]) -> None:
    world = make_world(backup_retention=0.0)
    world.delete(world.asleep())
    world.pass_time(1e9)
    world.sweeps.retention()
    assert world.core.backups.count() == 1


def stored(world: World, identity: Identity, keys: Keys = NO_KEYS, *, of: str = "", seconds: float = 0.0) -> str:
    """A backup that was written with these keys, named after its own session or another; answers its name."""
    (world.settings.data_dir / "app").mkdir(exist_ok=True)
    store = BackupStore(world.settings.backups_location(), keys)
    name = backup_name(of or identity.uuid, world.now + seconds)
    write_backup(world.settings.data_dir / "app", store, name, identity, world.now)
    return name


def whole_and_damaged(world: World) -> list[str]:
    """The names of two backups in the store, of which the second is damaged."""
    identity = Identity(uuid="aaaa0000", user_id="ada", created_at=world.now)
    names = [stored(world, identity, seconds=seconds) for seconds in range(2)]
    (world.settings.data_dir / "backups" / "aaaa0000" / f"{names[1]}.json").write_text("{")
    return names


@pytest.mark.parametrize("forged", ["no key", "another key", "another user", "another session", "the key of another"])
def test_the_index_takes_no_backup_that_another_wrote(make_world: Callable[..., World], forged: str) -> None:
    """Neither of who can write to the store, nor of a Job, which has the keys of its own session."""
    key = new_key()
    world = make_world(archive_key=key)
    uuid, name = world.active(), "abcd1234"
    ours = ArchiveKeys(key)
    victim = replace(world.get(uuid).identity, user_id="zelda")
    mine = Identity(uuid=name, user_id="ada", created_at=world.now)
    cases: dict[str, tuple[Identity, Keys, str]] = {
        "no key": (mine, NO_KEYS, name),
        "another key": (mine, ArchiveKeys(new_key()), name),
        "another user": (victim, ours.session(uuid), uuid),
        "another session": (replace(mine, uuid="bbbb0002"), ours.session(name), name),
        "the key of another": (mine, SessionKeys(name, ours.session("bbbb0002").keys), name),
    }
    identity, keys, of = cases[forged]
    stored(world, identity, keys, of=of)
    world.sweeps.index()
    assert world.core.backups.count() == 0


def test_the_index_takes_what_a_job_of_the_session_wrote(make_world: Callable[..., World]) -> None:
    """Whether its record is there or was lost."""
    key = new_key()
    world = make_world(archive_key=key)
    living = world.get(world.active()).identity
    lost = Identity(uuid="abcd1234", user_id="ada", created_at=world.now)
    for each in (living, lost):
        stored(world, each, ArchiveKeys(key).session(each.uuid))
    world.sweeps.index()
    assert {each.uuid for each in world.core.backups.page().items} == {living.uuid, lost.uuid}


def test_a_record_that_was_made_again_names_its_last_backup(make_world: Callable[..., World]) -> None:
    """Also where the first look at the store came before the record."""
    key = new_key()
    world = make_world(archive_key=key)
    identity = world.get(world.active()).identity
    for seconds in range(2):
        name = stored(world, identity, ArchiveKeys(key).session(identity.uuid), seconds=seconds)
    world.core.redis.flushall()
    world.sweeps.index()
    assert world.core.backups.looked_at() is None
    world.sweeps.reconcile()
    world.now += 1
    world.sweeps.index()
    assert (world.get(identity.uuid).backup, world.get(identity.uuid).backup_generation) == (name, 0)
    assert world.core.backups.looked_at() == world.now


@pytest.mark.parametrize("deleted", [False, True])
def test_a_backup_that_was_stored_while_redis_was_away_is_listed_by_the_next(world: World, deleted: bool) -> None:
    uuid = world.active()
    missed = stored(world, world.get(uuid).identity)
    if deleted:
        world.delete(uuid)
    else:
        world.sessions.request_backup(uuid)
        world.lifecycle.back_up(uuid)
    named = world.get(uuid).backup
    assert named != missed, "two made in one second have two names"
    assert {each.name for each in world.core.backups.page(uuid=uuid).items} == {named, missed}


def test_the_whole_store_is_looked_at_once_a_day_and_by_each_new_process(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And at once where Redis was lost. A damaged backup is told of once."""
    whole, damaged = whole_and_damaged(world)
    looks: list[float] = []
    look = world.core.backup_store.names

    def looked() -> list[str]:
        looks.append(world.now)
        return look()

    monkeypatch.setattr(world.core.backup_store, "names", looked)

    for _ in range(3):
        world.sweeps.index()
        world.pass_time(60)
    assert len(looks) == 1
    assert world.core.backups.count() == 1
    world.pass_time(86_400)
    world.sweeps.index()
    assert len(looks) == 2
    world.pass_time(1)
    another = Sweeps(world.core, world.runtime, world.lifecycle, world.clock, world.clock)
    for sweeps in (another, another, world.sweeps):
        sweeps.index()
    assert len(looks) == 3
    world.core.redis.flushall()
    world.sweeps.index()
    assert len(looks) == 4
    assert world.core.backups.get(whole).user_id == "ada"
    assert len([line for line in caplog.messages if "not indexed" in line and damaged in line]) == 2


def test_a_store_that_is_away_is_looked_at_again_soon(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(world.core.backup_store, "names", raising(RetryableError("The store is away.")))
        with pytest.raises(RetryableError):
            world.sweeps.index()
    assert world.core.backups.looked_at() is None
    world.sweeps.index()
    assert world.core.backups.looked_at() == world.now


def test_the_first_snapshot_puts_to_rest_what_was_stopped_meanwhile(world: World) -> None:
    """The whole service was shut down in order, its workspaces too: they sleep, they haven't failed."""
    uuid = world.active()
    world.observer.apply(Snapshot(()))
    assert (world.get(uuid).status, world.get(uuid).replicas) == (Status.SLEEPING, 0)


def test_a_snapshot_leaves_a_starting_session_to_its_worker(world: World) -> None:
    uuid = world.create()
    world.observer.apply(Snapshot(()))
    assert world.get(uuid).status is Status.CREATED


def test_a_workspace_without_a_record_is_no_error_for_the_observer(world: World) -> None:
    uuid = world.active()
    seen = world.runtime.observe(uuid)
    assert seen is not None
    world.core.redis.flushall()
    world.observer.apply(seen)
    assert world.core.redis.dbsize() == 0
