"""Intents, and what carries them out: with lost messages, killed workers, double deliveries and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from app.core.errors import (
    BackupInUse,
    BackupNotFound,
    FilesGoing,
    IllegalState,
    InvalidRequest,
    NoSpace,
    RetryableError,
)
from app.core.limit_errors import QuotaExceeded
from app.core.redis import keys, task_queue
from app.core.sessions.model import Status
from tests.world import World

FILES = {"a.txt": b"kept"}


def test_create_brings_a_workspace_up(world: World) -> None:
    uuid = world.create()
    assert world.get(uuid).status is Status.CREATED
    assert world.work() == [task_queue.PROVISION]
    world.now += 0.4
    up = world.up(uuid)
    assert (up.status, up.replicas, up.settled) == (Status.ACTIVE, 1, up.generation)
    assert up.phases == {"enqueued": 0, "ready": 400}


@pytest.mark.parametrize("user_id", ["", "a" * 129, "a b", "a/b", "a*", "ä", "a\n"])
def test_a_bad_user_id_is_refused(world: World, user_id: str) -> None:
    with pytest.raises(InvalidRequest):
        world.create(user_id)


def test_a_quota_reached_is_said(world: World) -> None:
    for _ in range(world.settings.max_sessions_per_user):
        world.create()
    with pytest.raises(QuotaExceeded):
        world.create()
    assert world.create("bob")


def test_sleep_and_wake_keep_the_files(world: World) -> None:
    uuid = world.active()
    world.files(uuid).update(FILES)
    world.sessions.sleep(uuid)
    assert world.get(uuid).status is Status.SLEEPING
    world.work()
    assert not world.runtime.workspaces[uuid].running
    assert world.get(uuid).settled == world.get(uuid).generation
    assert world.sessions.wake(uuid).status is Status.WAKING
    assert world.up(uuid).status is Status.ACTIVE
    assert world.files(uuid) == FILES


def test_waking_what_is_up_changes_nothing_but_its_last_use(world: World) -> None:
    uuid = world.active()
    world.now += 60
    before = world.get(uuid)
    assert world.sessions.wake(uuid).status is Status.ACTIVE
    assert world.get(uuid).generation == before.generation
    assert world.get(uuid).last_activity == world.now
    assert world.work() == []


def test_a_session_still_being_created_is_put_to_sleep_with_its_volume(world: World) -> None:
    """No process stays, and what was created is there."""
    uuid = world.create()
    asleep = world.sleep(uuid)
    assert (asleep.status, asleep.settled, asleep.provisioned) == (Status.SLEEPING, asleep.generation, True)
    assert not world.runtime.workspaces[uuid].running


def test_a_restore_is_finished_for_a_session_that_is_put_to_sleep_meanwhile(world: World) -> None:
    second = world.sessions.restore(backup_of_deleted(world)).uuid
    world.tasks.lose_all()
    world.sessions.sleep(second)
    assert world.work() == [task_queue.RESTORE]
    assert world.files(second) == FILES
    assert (world.get(second).restore_from, world.get(second).settled) == ("", 2)


def test_a_prompt_wins_over_the_sleep_of_a_session_still_being_created(world: World) -> None:
    uuid = world.create()
    world.sessions.sleep(uuid)
    world.sessions.prompt(uuid, "hello")
    world.work()
    assert world.get(uuid).status is Status.WAKING
    assert world.runtime.workspaces[uuid].running


def test_a_task_delivered_again_after_it_was_settled_does_nothing(world: World) -> None:
    uuid = world.asleep()
    world.sessions.wake(uuid)
    message = world.tasks.sent[0]
    world.up(uuid)
    world.tasks.sent.append(message)
    world.work()
    assert [call[:2] for call in world.runtime.calls].count(("start", uuid)) == 2, "one for create, one for the wake"


def test_an_old_task_does_nothing(world: World) -> None:
    """The wake's message arrives after a newer sleep was asked for."""
    uuid = world.asleep()
    old = world.sessions.wake(uuid).generation
    world.sessions.sleep(uuid)
    world.tasks.lose_all()
    world.lifecycle.carry_out(uuid, old)
    assert not world.runtime.workspaces[uuid].running


def test_a_lost_message_is_sent_again_by_the_stale_sweep(world: World) -> None:
    uuid = world.asleep()
    world.core.store.first_sight(world.now)
    world.sessions.wake(uuid)
    world.tasks.lose_all()
    world.sweeps.stale()
    assert world.tasks.sent == [], "not before it is overdue"
    assert world.catch_up() == [task_queue.WAKE]
    assert world.runtime.workspaces[uuid].running


def test_an_intent_in_a_living_workers_hands_is_left_to_it(world: World) -> None:
    uuid = world.asleep()
    world.sessions.wake(uuid)
    world.tasks.lose_all()
    world.now += world.settings.stale_after + 1
    with world.core.leases.hold(keys.LEASE.format(uuid=uuid)):
        world.sweeps.stale()
        assert task_queue.WAKE not in world.work()


def test_an_intent_that_finds_the_lease_taken_is_passed_on(world: World) -> None:
    """A wake comes while the sleep is being carried out: whoever holds the lease enqueues it at the end."""
    uuid = world.active()
    world.sessions.sleep(uuid)

    stop = world.runtime.stop

    def stop_while_a_wake_comes(uuid: str, generation: int) -> None:
        stop(uuid, generation)
        wake = world.sessions.wake(uuid).generation
        world.tasks.lose_all()
        world.lifecycle.carry_out(uuid, wake)

    world.runtime.stop = stop_while_a_wake_comes  # type: ignore[method-assign, assignment]
    assert world.work() == [task_queue.SLEEP, task_queue.WAKE]
    assert world.runtime.workspaces[uuid].running
    assert world.up(uuid).status is Status.ACTIVE


def test_ready_processes_of_an_older_intent_do_not_make_a_session_active(world: World) -> None:
    """Else a wake could be called done just before the sleep before it stops the processes."""
    uuid = world.active()
    world.sessions.sleep(uuid)
    world.sessions.wake(uuid)
    world.look(uuid)
    assert world.get(uuid).status is Status.WAKING


def backup_of_deleted(world: World) -> str:
    """The name of the backup of a session with one file, which was deleted."""
    uuid = world.active()
    world.files(uuid).update(FILES)
    return world.delete(uuid).backup


def test_delete_backs_up_then_deletes_everything(world: World) -> None:
    uuid = world.active()
    world.files(uuid).update(FILES)
    gone = world.delete(uuid)
    assert gone.status is Status.TERMINATED
    assert world.core.backups.get(gone.backup).uuid == uuid
    assert world.runtime.observe(uuid) is None
    restored = world.sessions.restore(gone.backup)
    world.work()
    assert restored.user_id == "ada"
    assert world.files(restored.uuid) == FILES
    assert world.get(restored.uuid).restore_from == ""


def test_a_failed_backup_deletes_nothing_and_a_second_delete_tries_again(world: World) -> None:
    uuid = world.active()
    world.files(uuid).update(FILES)
    world.runtime.errors["backup"] = NoSpace("The disk is full.")
    failed = world.delete(uuid)
    assert (failed.status, failed.reason) == (Status.FAILED, "The disk is full.")
    assert world.files(uuid) == FILES
    assert world.delete(uuid).status is Status.TERMINATED
    assert world.core.backups.count() == 1


def test_a_delete_without_a_backup_forces_one_that_is_under_way(world: World) -> None:
    """Its worker is deep in the backup, and finds that it is not wanted any more."""
    uuid = world.active()
    world.sessions.delete(uuid)
    world.files(uuid).update(FILES)
    forced: list[bool] = []
    world.runtime.meanwhile["backup"] = lambda: forced.append(world.sessions.delete(uuid, backup=False).delete_backup)
    world.work()
    assert forced == [False]
    assert world.get(uuid).status is Status.TERMINATED
    assert (world.core.backups.count(), world.runtime.observe(uuid)) == (0, None)


def test_a_delete_without_a_backup_makes_none_also_if_it_is_asked_again_with_one(world: World) -> None:
    uuid = world.active()
    world.sessions.delete(uuid, backup=False)
    assert world.sessions.delete(uuid).delete_backup is False
    world.work()
    assert world.sessions.delete(uuid).status is Status.TERMINATED
    assert world.core.backups.count() == 0


def test_a_teardown_killed_after_its_backup_does_not_make_another(world: World) -> None:
    uuid = world.active()
    world.runtime.errors["remove"] = RetryableError("killed here")
    world.sessions.delete(uuid)
    with pytest.raises(RetryableError):
        world.work()
    assert world.core.backups.count() == 1
    world.sessions.resend(world.get(uuid))
    world.work()
    assert world.get(uuid).status is Status.TERMINATED
    assert world.core.backups.count() == 1


def test_a_teardown_waits_for_a_running_backup(world: World) -> None:
    """Of a worker that is killed then: the stale sweep comes back once the lease has ended."""
    uuid = world.active()
    world.sessions.delete(uuid)
    with world.core.leases.hold(keys.BACKUP_LEASE.format(uuid=uuid)):
        assert world.work() == [task_queue.TEARDOWN]
        assert world.runtime.observe(uuid) is not None
    world.catch_up()
    assert world.get(uuid).status is Status.TERMINATED


@pytest.mark.parametrize("ends_with", [None, NoSpace("The disk is full."), RetryableError("The store is away.")])
def test_the_end_of_a_backup_resumes_the_teardown_that_waited(world: World, ends_with: Exception | None) -> None:
    """However it ended, and without a sweep. What the teardown needs is a backup of its own: the files may have
    changed since."""
    uuid = world.active()
    world.sessions.request_backup(uuid)
    meanwhile: list[object] = []

    def overtaken() -> None:
        world.sessions.delete(uuid)
        meanwhile.extend((world.work(), uuid in world.runtime.workspaces))
        world.runtime.errors |= {"backup": ends_with} if ends_with else {}

    world.runtime.meanwhile["backup"] = overtaken
    with suppress(RetryableError):
        world.work()
    world.work()
    assert meanwhile == [[task_queue.TEARDOWN], True]
    assert (world.get(uuid).status, world.runtime.observe(uuid)) == (Status.TERMINATED, None)
    assert world.core.backups.count() == (1 if ends_with else 2)


def test_a_teardown_that_gave_way_to_a_backup_which_ended_meanwhile_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backup's end still saw the teardown at work, so it is for the teardown to notice."""
    uuid = world.active()
    world.sessions.delete(uuid)
    hold = world.core.leases.hold

    @contextmanager
    def taken_once(key: str, take: Any = None) -> Iterator[bool]:
        if key == keys.BACKUP_LEASE.format(uuid=uuid):
            monkeypatch.setattr(world.core.leases, "hold", hold)
            yield False
        else:
            with hold(key, take) as held:
                yield held

    monkeypatch.setattr(world.core.leases, "hold", taken_once)
    assert world.work() == [task_queue.TEARDOWN, task_queue.TEARDOWN]
    assert world.get(uuid).status is Status.TERMINATED


def test_a_session_whose_files_were_never_restored_names_their_backup(world: World) -> None:
    name = backup_of_deleted(world)
    second = world.sessions.restore(name).uuid
    world.tasks.lose_all()
    assert world.delete(second).backup == name
    assert world.core.backups.count() == 1


def test_a_backup_in_use_is_not_deletable(world: World) -> None:
    backup = world.sessions.backup(backup_of_deleted(world))
    world.sessions.restore(backup.name)
    with pytest.raises(BackupInUse):
        world.core.backup_access.delete(backup.name)
    world.work()
    world.core.backup_access.delete(backup.name)


def test_a_failed_restore_is_tried_again_by_wake_and_never_starts_empty(world: World) -> None:
    name = backup_of_deleted(world)
    world.runtime.errors["restore"] = NoSpace("The disk is full.")
    second = world.sessions.restore(name).uuid
    world.work()
    assert world.get(second).status is Status.FAILED
    world.sessions.wake(second)
    assert world.work() == [task_queue.RESTORE]
    assert world.files(second) == FILES


def test_restoring_an_unknown_backup_is_not_found(world: World) -> None:
    with pytest.raises(BackupNotFound):
        world.sessions.restore("app-aaaaaaaa-20260101-000000.zip")


def test_a_backup_of_a_running_session_leaves_it_running(world: World) -> None:
    uuid = world.active()
    world.sessions.request_backup(uuid)
    assert world.work() == [task_queue.BACKUP]
    assert world.get(uuid).status is Status.ACTIVE
    assert world.core.backups.newest_of(uuid).name == world.get(uuid).backup  # type: ignore[union-attr]


def test_a_lost_backup_message_is_sent_again(world: World) -> None:
    uuid = world.active()
    world.sessions.request_backup(uuid)
    world.tasks.lose_all()
    assert task_queue.BACKUP in world.catch_up()
    assert world.core.backups.count() == 1


def test_a_failed_backup_is_an_event_and_the_session_goes_on(world: World) -> None:
    uuid = world.active()
    world.runtime.errors["backup"] = NoSpace("The disk is full.")
    assert world.back_up(uuid).status is Status.ACTIVE
    told = world.events_of(uuid)[-1]
    assert (told.type, told.data) == ("backup", {"status": "failed", "reason": "The disk is full."})
    assert world.core.redis.zscore(keys.BACKUP_REQUESTS, uuid) is None


def test_there_is_nothing_to_back_up_before_the_files_are_there(world: World) -> None:
    uuid = world.create()
    with pytest.raises(IllegalState):
        world.sessions.request_backup(uuid)


def test_a_workspace_that_died_is_failed_with_its_last_words_and_wakes(world: World) -> None:
    uuid = world.active()
    world.runtime.crash(uuid, "out of memory")
    world.look(uuid)
    assert world.get(uuid).status is Status.FAILED
    assert "out of memory" in world.get(uuid).reason
    woken = world.wake(uuid)
    assert (woken.status, woken.reason) == (Status.ACTIVE, "")


def test_a_start_that_never_answers_is_left_alone_and_has_failed_in_the_end(world: World) -> None:
    """Starting it again and again would only begin the wait anew, and replace a pod that is slow."""
    uuid = world.create()
    world.core.heartbeats.observer_alive(world.now)
    world.work()
    for _ in range(round(world.settings.start_timeout / world.settings.stale_after)):
        world.watch(world.settings.stale_after)
        assert task_queue.PROVISION not in world.work()
    world.watch(1.0)
    assert world.get(uuid).status is Status.FAILED
    assert "did not answer" in world.get(uuid).reason


def test_a_start_that_nobody_watched_has_not_failed(world: World) -> None:
    """The service was stopped meanwhile, or its observer was: nobody can say that it did not answer."""
    uuid = world.create()
    world.core.heartbeats.observer_alive(world.now)
    world.work()
    world.now += 10 * world.settings.start_timeout
    world.sweeps.stale()
    world.core.heartbeats.observer_alive(world.now)
    world.sweeps.stale()
    assert world.get(uuid).status is Status.CREATED
    world.watch(80.0)
    assert world.get(uuid).status is Status.FAILED


def test_a_failed_start_that_answers_after_all_is_active(world: World) -> None:
    uuid = world.create()
    world.work()
    world.now += world.settings.start_timeout + 1
    world.sweeps.stale()
    world.runtime.become_ready(uuid)
    world.look(uuid)
    assert world.get(uuid).status is Status.ACTIVE


def test_a_session_whose_files_are_gone_without_a_backup_wakes_empty_once_its_user_knows(world: World) -> None:
    uuid = world.asleep()
    del world.runtime.workspaces[uuid]
    for told in ("it has no backup", ""):
        world.sessions.wake(uuid)
        world.work()
        assert told in world.get(uuid).reason
    assert world.runtime.workspaces[uuid].running


def test_a_session_whose_files_are_gone_can_be_deleted(world: World) -> None:
    """With nothing left to back up, its newest backup is what remains of it."""
    uuid = world.active()
    newest = world.back_up(uuid).backup
    world.sleep(uuid)
    del world.runtime.workspaces[uuid]
    gone = world.delete(uuid)
    assert (gone.status, gone.backup) == (Status.TERMINATED, newest)


@pytest.mark.parametrize("backup", [True, False])
def test_files_that_end_with_the_workspace_are_backed_up_before_it_is_stopped(world: World, backup: bool) -> None:
    """Someone else had the volume deleted: it lasts as long as the workspace runs."""
    uuid = world.active()
    world.files(uuid).update(FILES)
    world.runtime.errors["stop"] = FilesGoing()
    world.sessions.delete(uuid, backup=backup)
    world.runtime.calls.clear()
    world.work()
    assert world.runtime.called == ["stop", *(["backup"] if backup else []), "remove"]
    gone = world.get(uuid)
    assert (gone.status, gone.replicas, bool(gone.backup)) == (Status.TERMINATED, 0, backup)
    assert list(world.runtime.backups.values()) == ([FILES] if backup else [])


def test_a_session_is_not_put_to_sleep_when_that_would_end_its_files(world: World) -> None:
    uuid = world.active()
    world.runtime.errors["stop"] = FilesGoing()
    failed = world.sleep(uuid)
    assert failed.status is Status.FAILED
    assert "Delete the session: its files are backed up first" in failed.reason
    assert world.runtime.workspaces[uuid].running


def test_what_another_worker_at_the_same_intent_ended_otherwise_stays_as_it_is(world: World) -> None:
    """One of the two lost its lease without noticing; the session's user is told, and deletes it again."""
    uuid = world.asleep()
    generation = world.sessions.delete(uuid).generation
    removed = world.runtime.remove

    def overtaken(uuid: str, generation: int, *, force: bool = False) -> None:
        removed(uuid, generation)
        world.lifecycle.fail(world.get(uuid), "It was given up.")

    world.runtime.remove = overtaken  # type: ignore[method-assign]
    world.lifecycle.carry_out(uuid, generation)
    assert (world.get(uuid).status, world.get(uuid).reason) == (Status.FAILED, "It was given up.")
    world.sessions.delete(uuid)
    world.runtime.remove = removed  # type: ignore[method-assign]
    world.work()
    assert world.get(uuid).status is Status.TERMINATED


def test_a_wait_ends_when_the_state_is_reached_and_when_time_is_up(world: World) -> None:
    uuid = world.active()
    assert world.sessions.wait(uuid, lambda r: r.status is Status.ACTIVE, 60).status is Status.ACTIVE
    assert world.sessions.wait(uuid, lambda r: r.status is Status.SLEEPING, 0.1).status is Status.ACTIVE
