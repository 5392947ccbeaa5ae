"""A backup goes only when nobody needs it: that is asked, and it is taken out of the index, in one step."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from app.core.backups.index import Backup
from app.core.errors import ArchiveError, BackupInUse, BackupNotFound, RetryableError
from app.core.redis import keys, task_queue
from app.core.service import NewSession
from app.core.sessions.model import Status
from tests.fakes import raising
from tests.world import World
from workers import rpc

DAY = 86_400.0


def a_backup(world: World, **wanted: object) -> str:
    """The name of a terminated session's backup, in the index, the store and the runtime."""
    uuid = world.asleep("bob", **wanted)
    world.sessions.delete(uuid)
    world.work()
    name = world.get(uuid).backup
    store(world, name)
    return name


def store(world: World, name: str) -> None:
    """The runtime of these tests keeps its backups to itself."""
    with world.core.backup_store.writing(name) as part:
        part.write(b"PK")
        identity = {"uuid": name[4:12], "user_id": "bob", "created_at": 1.0}
        whole = {"changed": [], "unreadable": [], "complete": True}
        part.commit({**world.core.backups.get(name).to_hash(), **whole, "identity": identity})


def backed_up(world: World, uuid: str) -> str:
    """The name of a backup of the session that was asked for, and made."""
    world.sessions.request_backup(uuid)
    world.work()
    return world.get(uuid).backup


def is_whole(world: World, name: str) -> bool:
    """Whether it is listed, with its files."""
    try:
        world.core.backups.get(name)
    except BackupNotFound:
        return False
    return world.core.backup_store.exists(name)


def by_api(world: World, name: str) -> None:
    world.core.backup_access.delete(name)


def by_worker(world: World, name: str) -> None:
    """As a process does that can't reach the store: asks a worker, and waits."""
    world.core.redis.set("rpc:t", name)
    rpc.delete(world.core, name, "t")
    answer = world.core.redis.lpop("rpc:t:answer")
    if answer != "{}":
        raise BackupInUse(answer)


def by_retention(world: World, name: str) -> None:
    """With everything older than it is kept."""
    world.pass_time(world.settings.backup_retention + 1)
    world.sweeps.retention()
    if is_whole(world, name):
        raise BackupInUse(name)


DELETERS = pytest.mark.parametrize("delete", [by_api, by_worker, by_retention])
Delete = Callable[[World, str], None]


CREATED = pytest.param(lambda world, uuid: None, id="created")


def waking(world: World, uuid: str) -> None:
    world.lifecycle.fail(world.get(uuid), "The disk is full.")
    world.sessions.wake(uuid)


def slept_while_waking(world: World, uuid: str) -> None:
    waking(world, uuid)
    world.sessions.sleep(uuid)


def failed(world: World, uuid: str) -> None:
    world.lifecycle.fail(world.get(uuid), "The disk is full.")


def terminating(world: World, uuid: str) -> None:
    world.sessions.delete(uuid)


@DELETERS
@pytest.mark.parametrize("state", [CREATED, waking, slept_while_waking, failed, terminating])
def test_what_a_living_session_is_restored_from_stays(
    world: World, state: Callable[[World, str], None], delete: Delete
) -> None:
    """Whatever its state: it has no other files."""
    name = a_backup(world)
    uuid = world.sessions.restore(name).uuid
    state(world, uuid)
    world.tasks.lose_all()
    with pytest.raises(BackupInUse):
        delete(world, name)
    assert is_whole(world, name)


@DELETERS
@pytest.mark.parametrize("end", ["restored", "terminated"])
def test_it_may_go_when_the_session_has_its_files_or_is_gone(world: World, delete: Delete, end: str) -> None:
    name = a_backup(world)
    uuid = world.sessions.restore(name).uuid
    if end == "terminated":
        world.sessions.delete(uuid, backup=False)
    world.work()
    delete(world, name)
    assert not is_whole(world, name) and name not in world.core.backup_store.names()
    assert world.core.redis.keys("backup*") == []


@DELETERS
def test_a_restore_that_comes_while_a_backup_is_deleted_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, delete: Delete
) -> None:
    """Whoever deletes has asked already, and is about to take the files."""
    name = a_backup(world)
    files_delete = world.core.backup_store.delete

    def restored_meanwhile(name: str) -> None:
        with pytest.raises(BackupNotFound):
            world.sessions.restore(name)
        with pytest.raises(BackupNotFound):
            world.sessions.create(NewSession(user_id="ada", restore_from=name))
        files_delete(name)

    monkeypatch.setattr(world.core.backup_store, "delete", restored_meanwhile)
    delete(world, name)
    assert not is_whole(world, name)
    assert world.core.store.uuids([Status.CREATED]) == []


@DELETERS
def test_a_backup_deleted_while_its_restore_is_asked_for_is_not_found(
    world: World, monkeypatch: pytest.MonkeyPatch, delete: Delete
) -> None:
    """The restore has seen it, and is about to write the record."""
    name = a_backup(world)
    create = world.core.store.create

    def deleted_meanwhile(*args: object, **more: object) -> str:
        monkeypatch.undo()
        delete(world, name)
        return create(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(world.core.store, "create", deleted_meanwhile)
    with pytest.raises(BackupNotFound):
        world.sessions.restore(name)
    assert world.core.store.uuids([Status.CREATED]) == []
    assert world.core.redis.zcard(keys.ALL) == 0


@pytest.mark.parametrize("delete", [by_api, by_worker])
def test_the_backup_of_a_deletion_under_way_stays_until_the_files_are_gone(world: World, delete: Delete) -> None:
    """Killed between the two, the teardown goes on from it; without it nothing would be left."""
    uuid = world.asleep()
    world.runtime.errors["remove"] = RetryableError("killed here")
    world.sessions.delete(uuid)
    with pytest.raises(RetryableError):
        world.work()
    name = world.get(uuid).backup
    store(world, name)
    with pytest.raises(BackupInUse):
        delete(world, name)
    world.sessions.resend(world.get(uuid))
    world.work()
    assert world.get(uuid).status is Status.TERMINATED
    delete(world, name)
    assert not is_whole(world, name)


@pytest.mark.parametrize("delete", [by_api, by_worker])
def test_a_teardown_whose_backup_was_deleted_before_it_was_noted_makes_another(
    world: World, monkeypatch: pytest.MonkeyPatch, delete: Delete
) -> None:
    """It was in the list for a moment before the record named it."""
    uuid = world.asleep()
    add = world.core.backups.add

    def deleted_at_once(backup: Backup) -> None:
        monkeypatch.undo()
        add(backup)
        store(world, backup.name)
        delete(world, backup.name)

    monkeypatch.setattr(world.core.backups, "add", deleted_at_once)
    world.sessions.delete(uuid)
    world.work()
    newest = world.core.backups.newest_of(uuid)
    assert newest is not None
    assert (world.get(uuid).status, world.get(uuid).backup) == (Status.TERMINATED, newest.name)


def test_files_lost_with_their_backup_just_deleted_are_looked_for_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record must not name a backup that is on its way out."""
    uuid = world.asleep()
    older = backed_up(world, uuid)
    world.now += 60
    newer = backed_up(world, uuid)
    world.now += 60
    del world.runtime.workspaces[uuid]
    newest_of = world.core.backups.newest_of

    def deleted_meanwhile(uuid: str, before: float) -> Backup | None:
        newest = newest_of(uuid, before)
        monkeypatch.undo()
        by_api(world, newer)
        return newest

    monkeypatch.setattr(world.core.backups, "newest_of", deleted_meanwhile)
    world.sessions.wake(uuid)
    world.work()
    assert world.get(uuid).restore_from == ""
    world.now += world.settings.stale_after + 1
    world.sweeps.stale()
    world.work()
    assert world.get(uuid).status is Status.WAKING
    assert world.runtime.workspaces[uuid].restored == older


def test_a_session_whose_backup_is_gone_all_the_same_is_failed_and_no_dead_letter(world: World) -> None:
    """Its files were deleted behind the service's back. It says so at each wake, and can be deleted."""
    name = a_backup(world)
    uuid = world.sessions.restore(name).uuid
    del world.runtime.backups[name]
    for _ in range(2):
        world.work()
        assert world.get(uuid).status is Status.FAILED
        assert f"Backup {name} does not exist" in world.get(uuid).reason
        world.sessions.wake(uuid)
    world.work()
    world.sessions.delete(uuid)
    world.work()
    assert world.get(uuid).status is Status.TERMINATED


# Retention


def test_the_newest_backup_of_a_workspace_without_a_record_stays(world: World) -> None:
    """It is a session whose record was lost, and not yet found again."""
    uuid = world.asleep()
    for _ in range(2):
        backed_up(world, uuid)
        world.now += 60
    newest = world.core.backups.newest_of(uuid)
    world.core.redis.delete(keys.SESSION.format(uuid=uuid))
    world.pass_time(world.settings.backup_retention + 1)
    world.sweeps.retention()
    assert (world.core.backups.count(), world.core.backups.newest_of(uuid)) == (1, newest)


def test_a_backup_that_can_t_be_deleted_keeps_no_other_from_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is out of the index, and its files are tried again; the next sweep says so again."""
    names = [a_backup(world) for _ in range(2)]
    files_delete = world.core.backup_store.delete

    def refused(name: str) -> None:
        if name == names[0]:
            raise ArchiveError("The store could not handle it (Permission denied).")
        files_delete(name)

    monkeypatch.setattr(world.core.backup_store, "delete", refused)
    world.pass_time(world.settings.backup_retention + 1)
    world.sweeps.retention()
    assert [world.core.backup_store.exists(name) for name in names] == [True, False]
    world.pass_time(3_600)
    world.sweeps.index()
    monkeypatch.undo()
    world.sweeps.index()
    assert world.core.backup_store.names() == []


# Deletions that were broken off


@DELETERS
def test_a_deletion_that_was_killed_is_finished_by_a_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch, delete: Delete
) -> None:
    """Meanwhile the backup is listed nowhere, nothing is restored from it, and no sweep brings it back."""
    world.now = time.time()  # a worker that is asked has no other clock
    name = a_backup(world)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(world.core.backup_store, "delete", raising(KeyboardInterrupt()))
        delete(world, name)
    world.sweeps.index()
    assert world.core.backups.count() == 0 and world.core.backup_store.exists(name)
    with pytest.raises(BackupNotFound):
        world.sessions.restore(name)
    world.now += 3_600
    world.sweeps.index()
    assert name not in world.core.backup_store.names()
    assert world.core.redis.zcard(keys.RETIRED) == 0


def test_a_second_deletion_finishes_what_the_first_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = a_backup(world)
    with monkeypatch.context() as patch, pytest.raises(RetryableError):
        patch.setattr(world.core.backup_store, "delete", raising(RetryableError("away")))
        by_api(world, name)
    by_api(world, name)
    by_api(world, name)
    assert not world.core.backup_store.exists(name)


def test_the_name_of_a_backup_that_is_being_deleted_is_not_given_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names count seconds. A second backup of that name would be deleted with the first."""
    uuid = world.asleep()
    first = backed_up(world, uuid)
    files_delete = world.core.backup_store.delete

    def another_meanwhile(name: str) -> None:
        monkeypatch.undo()
        backed_up(world, uuid)
        files_delete(name)

    monkeypatch.setattr(world.core.backup_store, "delete", another_meanwhile)
    by_api(world, first)
    assert world.get(uuid).backup != first
    assert world.core.backups.newest_of(uuid) is not None


# What is known of the backups in use


def test_after_redis_was_lost_a_backup_is_listed_when_who_needs_it_is_known(world: World) -> None:
    """The index comes back first; its user could delete what a workspace without a record is to be restored from."""
    name = a_backup(world)
    uuid = world.sessions.restore(name).uuid
    world.runtime.provision(world.get(uuid).identity, 1)
    world.tasks.lose_all()
    world.core.redis.flushall()
    world.sweeps.index()
    assert world.core.backups.count() == 0
    world.sweeps.reconcile()
    world.sweeps.index()
    assert world.core.backups.count() == 1
    with pytest.raises(BackupInUse):
        by_api(world, name)
    world.work()
    by_api(world, name)
    assert task_queue.RESTORE not in world.work()


def test_the_newest_backup_that_lacks_no_file_outlives_newer_ones_that_do(world: World) -> None:
    """A partial one was asked for since: it can't stand for the whole one, neither for retention nor for lost files."""
    uuid = world.active()
    workspace = world.runtime.workspaces[uuid]
    workspace.files |= {"kept": b"1", "closed": b"2"}
    names = []
    for unreadable in (set(), set(), {"closed"}):
        workspace.unreadable |= unreadable
        names.append(backed_up(world, uuid))
        store(world, names[-1])
        world.now += 1
    older, whole, partial = names
    world.pass_time(world.settings.backup_retention + 1)
    world.sweeps.retention()
    assert [is_whole(world, name) for name in (older, whole, partial)] == [False, True, True]
    newest = world.core.backups.newest_of(uuid)
    assert newest is not None and newest.name == whole
