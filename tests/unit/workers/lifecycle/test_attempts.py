"""The account of attempts: what is tried again, what is given up, and what gets no second message."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import PermanentError, RetryableError, RuntimeUnavailable, StateUnavailable, Superseded
from app.core.redis import keys, task_queue
from app.core.sessions.attempts import MAX_ATTEMPTS
from app.core.sessions.model import Status
from tests.fakes import raising
from tests.world import World
from workers.lifecycle.steps import Steps
from workers.runtime.base import BackupSummary, Snapshot


class Killed(BaseException):
    """The worker's process ended there."""


def die(world: World, uuid: str, work: Callable[[], object]) -> None:
    """Do it in a worker that dies of it: nothing it would do at its end is done, and its lease ends by itself."""
    with pytest.MonkeyPatch.context() as dead, pytest.raises(Killed):
        dead.setattr(world.core.leases, "_release", lambda lock: None)
        dead.setattr(world.lifecycle, "_unfinished", lambda uuid: None)
        work()


def lease_ends(world: World, uuid: str) -> None:
    for name in (keys.LEASE, keys.BACKUP_LEASE):
        world.core.redis.delete(name.format(uuid=uuid))


def sweep(world: World) -> list[tuple[str, tuple[Any, ...]]]:
    """What the stale sweep sends, once everything is overdue."""
    world.core.store.first_sight(world.now)  # a new Redis is compared with all there is
    world.now += world.settings.stale_after + 31
    world.sweeps.stale()
    return world.tasks.sent


def test_a_task_that_kills_its_workers_is_a_dead_letter_also_when_its_message_comes_back_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message returns to a worker that meets the dead one's lease: that is no attempt, and forgets none."""
    uuid = world.create()
    monkeypatch.setattr(world.runtime, "provision", raising(Killed()))
    for attempts in range(1, MAX_ATTEMPTS + 1):
        die(world, uuid, lambda: world.lifecycle.carry_out(uuid, 1))
        world.lifecycle.carry_out(uuid, 1)
        assert world.get(uuid).tries == attempts
        lease_ends(world, uuid)
    world.lifecycle.carry_out(uuid, 1)
    assert world.get(uuid).status is Status.FAILED
    assert "its worker died in each of 5 attempts" in world.get(uuid).reason
    assert [(letter.task, letter.args, letter.tries) for letter in world.core.dead_letters.read()] == [
        (task_queue.PROVISION, (uuid, 1), 5)
    ]


def test_a_backup_that_kills_its_workers_is_a_dead_letter_and_the_session_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = world.active()
    world.sessions.request_backup(uuid)
    monkeypatch.setattr(world.runtime, "backup", raising(Killed()))
    for _ in range(MAX_ATTEMPTS):
        die(world, uuid, lambda: world.lifecycle.back_up(uuid))
        world.lifecycle.back_up(uuid)
        lease_ends(world, uuid)
    world.lifecycle.back_up(uuid)
    assert world.get(uuid).status is Status.ACTIVE
    assert [letter.task for letter in world.core.dead_letters.read()] == [task_queue.BACKUP]
    assert world.core.redis.zscore(keys.BACKUP_REQUESTS, uuid) is None
    assert world.get(uuid).backup_tries == 0


def test_what_fails_for_now_is_tried_again_later_and_later_and_then_given_up(world: World) -> None:
    uuid = world.create()
    world.tasks.lose_all()
    for number in range(1, MAX_ATTEMPTS):
        world.runtime.errors["provision"] = RetryableError("The disk is busy.")
        with pytest.raises(RetryableError):
            world.lifecycle.carry_out(uuid, 1)
        assert world.get(uuid).tries == number
        due = world.core.redis.zscore(keys.INTENTS, uuid)
        assert 0.4 * 2 ** (number - 1) <= due - world.now <= 2 ** (number - 1)
        assert sweep(world) == [(task_queue.PROVISION, (uuid, 1))]
        world.tasks.lose_all()
    world.runtime.errors["provision"] = RetryableError("The disk is busy.")
    world.lifecycle.carry_out(uuid, 1)
    assert "The disk is busy." in world.get(uuid).reason
    assert len(world.core.dead_letters.read()) == 1


@pytest.mark.parametrize("away", [StateUnavailable("Redis is away."), RuntimeUnavailable("The API server is away.")])
def test_what_is_away_counts_as_no_attempt(world: World, away: Exception) -> None:
    uuid = world.create()
    for _ in range(MAX_ATTEMPTS + 3):
        world.runtime.errors["provision"] = away
        with pytest.raises(type(away)):
            world.lifecycle.carry_out(uuid, 1)
    assert world.get(uuid).tries == 0
    world.work()
    assert world.get(uuid).started_at


@pytest.mark.parametrize("used", [False, True], ids=["first use", "used before"])
def test_a_store_that_is_away_fails_no_backup_and_no_point(saving_world: World, used: bool) -> None:
    """Whether or not this process has used it before. Both are made when it is there again."""
    world = saving_world
    uuid = world.active()
    if used:
        world.core.backup_store.prepare(uuid)
    root = Path(world.core.backup_store.files.root)
    root.parent.mkdir(exist_ok=True)
    if used:
        root.rename(root.with_name("aside"))
    root.write_text("no folder")
    world.sessions.request_backup(uuid)
    world.sessions.request_point(uuid)
    world.tasks.lose_all()
    for attempt in (world.lifecycle.back_up, world.points.make):
        with pytest.raises(RetryableError, match="Mount its disk"):
            attempt(uuid)
    assert "Mount its disk" in world.get(uuid).point_error
    root.unlink()
    world.lifecycle.back_up(uuid)
    world.points.make(uuid)
    assert world.get(uuid).backup and world.get(uuid).point


def test_an_attempt_that_came_to_its_end_does_not_count_against_the_next(world: World) -> None:
    """A service that is stopped and started while a workspace starts makes the start again, however often."""
    uuid = world.create()
    for _ in range(MAX_ATTEMPTS + 3):
        world.work()
        world.runtime.stop(uuid, 1)
        world.observer.apply(Snapshot((), unwished=True))
    assert world.tasks.sent == [(task_queue.PROVISION, (uuid, 1))]
    assert world.core.dead_letters.read() == []


def test_an_intent_whose_message_waits_gets_no_second_one(world: World) -> None:
    """Two hundred deletes and no backup worker: two hundred messages, however long that lasts."""
    uuid = world.active()
    world.sessions.delete(uuid)
    world.sessions.request_backup(world.active("bob"))
    asked = world.active("eve")
    world.core.inbox.take(asked, "hi", now=world.now)
    world.tasks.send(task_queue.DELIVER, asked)
    before = list(world.tasks.sent)
    for _ in range(10):
        assert sweep(world) == before


def take_one(world: World) -> None:
    """A worker takes the first message."""
    world.lifecycle.carry_out(*world.tasks.sent.pop(0)[1])


@pytest.mark.parametrize("backing_up", [False, True])
@pytest.mark.parametrize("fails", [False, True], ids=["done", "put off"])
def test_an_intent_whose_message_found_the_lease_taken_is_sent_when_it_is_released(
    world: World, fails: bool, backing_up: bool
) -> None:
    """A wake does not wait for a backup."""
    uuid = world.active()
    world.sessions.sleep(uuid)
    stop = world.runtime.stop

    def a_wake_comes(uuid: str, generation: int) -> None:
        stop(uuid, generation)
        world.sessions.wake(uuid)
        take_one(world)
        if fails:
            raise RetryableError("It still stops.")

    world.runtime.stop = a_wake_comes  # type: ignore[method-assign, assignment]
    backup = world.core.leases.hold(keys.BACKUP_LEASE.format(uuid=uuid)) if backing_up else nullcontext()
    with backup, pytest.raises(RetryableError) if fails else nullcontext():
        take_one(world)
    assert world.tasks.sent == [(task_queue.WAKE, (uuid, 3))]


@pytest.mark.parametrize("error", [RetryableError("It is busy."), RuntimeUnavailable("It is away.")])
def test_an_attempt_that_is_put_off_sends_nothing(world: World, error: Exception) -> None:
    """Else it would be repeated at once, and on and on."""
    world.create()
    world.runtime.errors["provision"] = error
    with pytest.raises(type(error)):
        take_one(world)
    assert world.tasks.sent == []


def test_an_attempt_that_came_to_nothing_sends_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent again when it is due."""
    world.create()
    monkeypatch.setattr(Steps, "act", lambda self, record: None)
    take_one(world)
    assert world.tasks.sent == []


def test_an_attempt_whose_record_changed_is_repeated_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = world.create()
    monkeypatch.setattr(Steps, "act", raising(Superseded("The backup is gone.")))
    take_one(world)
    assert world.tasks.sent == [(task_queue.PROVISION, (uuid, 1))]


def test_a_start_whose_processes_end_before_its_lease_is_released_is_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = world.create()
    release = world.core.leases._release

    def ends_first(lock: Any) -> None:
        monkeypatch.setattr(world.core.leases, "_release", release)
        world.runtime.stop(uuid, 1)
        world.observer.apply(Snapshot((), unwished=True))
        take_one(world)
        release(lock)

    monkeypatch.setattr(world.core.leases, "_release", ends_first)
    take_one(world)
    assert world.tasks.sent == [(task_queue.PROVISION, (uuid, 1))]


def test_the_end_of_a_backup_sends_what_waits_for_it_and_nothing_that_was_put_off(world: World) -> None:
    waits, put_off = world.active(), world.active("bob")
    sent: list[tuple[str, tuple[Any, ...]]] = []

    def a_deletion_waits() -> None:
        world.lifecycle.carry_out(waits, world.sessions.delete(waits).generation)
        world.tasks.lose_all()

    def a_sleep_is_put_off() -> None:
        world.runtime.errors["stop"] = RetryableError("The API server is busy.")
        with pytest.raises(RetryableError):
            world.lifecycle.carry_out(put_off, world.sessions.sleep(put_off).generation)
        world.tasks.lose_all()

    for uuid, happens in ((waits, a_deletion_waits), (put_off, a_sleep_is_put_off)):
        world.runtime.meanwhile["backup"] = happens
        world.sessions.request_backup(uuid)
        world.lifecycle.back_up(uuid)
        sent += [each for each in world.tasks.sent if each[0] in (task_queue.TEARDOWN, task_queue.SLEEP)]
    assert sent == [(task_queue.TEARDOWN, (waits, world.get(waits).generation))]


def test_a_worker_that_lost_its_lease_changes_nothing_any_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suspended in its backup for longer than the lease lasts, while another one deletes the session."""
    uuid = world.active()
    generation = world.sessions.delete(uuid).generation

    def suspended() -> None:
        lease_ends(world, uuid)
        with monkeypatch.context() as other, pytest.raises(RetryableError):
            other.setattr(world.runtime, "remove", raising(RetryableError("busy")))
            world.lifecycle.carry_out(uuid, generation)

    world.runtime.meanwhile["backup"] = suspended
    world.lifecycle.carry_out(uuid, generation)
    assert world.runtime.called.count("remove") == 0
    assert world.get(uuid).status is Status.TERMINATING


def test_a_worker_that_lost_its_lease_before_a_start_does_not_repeat_it(world: World) -> None:
    """Suspended where nothing asks whether it is still wanted, while another one carries the same intent out."""
    uuid = world.create()
    world.tasks.lose_all()

    def suspended() -> None:
        lease_ends(world, uuid)
        world.lifecycle.carry_out(uuid, 1)

    world.runtime.meanwhile["provision"] = suspended
    world.lifecycle.carry_out(uuid, 1)
    assert world.runtime.called.count("start") == 1


def test_a_requested_backup_waits_from_its_first_request_until_an_attempt_settles_it(world: World) -> None:
    uuid, store = world.active(), world.core.store
    assert store.oldest_backup_request(world.now) == 0
    world.sessions.request_backup(uuid)
    world.now += 600
    world.sessions.request_backup(uuid)
    world.runtime.errors["backup"] = RetryableError("The store does not answer.")
    with pytest.raises(RetryableError):
        world.lifecycle.back_up(uuid)
    assert store.oldest_backup_request(world.now) == 600, "neither a second request nor a failed attempt begins it anew"
    world.tasks.sent.clear()
    world.runtime.errors.clear()
    world.lifecycle.back_up(uuid)
    assert store.oldest_backup_request(world.now) == 0


def test_a_record_says_which_request_for_a_backup_has_ended_and_how(world: World) -> None:
    uuid = world.active()
    world.runtime.errors["backup"] = PermanentError("The volume is gone.")
    for number, error in ((1, "The volume is gone."), (2, "")):
        assert world.sessions.request_backup(uuid).backup_asked == number
        world.work()
        ended = world.get(uuid)
        assert (ended.backup_ended, ended.backup_error) == (number, error)


def test_a_backup_that_was_begun_before_it_was_asked_for_does_not_settle_the_request(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written in between is in none of those before."""
    uuid = world.active()
    files = world.files(uuid)
    world.sessions.request_backup(uuid)
    back_up = world.runtime.backup

    def and_then_more_is_written(uuid: str, name: str, **more: Any) -> BackupSummary:
        monkeypatch.setattr(world.runtime, "backup", back_up)
        summary = back_up(uuid, name, **more)
        files["later.txt"] = b"later"
        world.sessions.request_backup(uuid)
        world.lifecycle.back_up(*world.tasks.sent.pop()[1])
        return summary

    monkeypatch.setattr(world.runtime, "backup", and_then_more_is_written)
    assert world.work() == [task_queue.BACKUP, task_queue.BACKUP]
    newest = world.core.backups.newest_of(uuid)
    assert newest is not None
    assert world.runtime.backups[newest.name] == {"later.txt": b"later"}
    assert [each["status"] for each in world.told(uuid, "backup")] == ["done", "done"]
    assert world.core.redis.zscore(keys.BACKUP_REQUESTS, uuid) is None


def test_a_deletion_does_not_wait_for_a_restore(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The restore holds the session's lease, for an hour maybe, and finds that nobody needs its files."""
    uuid = world.sessions.restore(world.delete(world.active()).backup).uuid
    restore = world.runtime.restore

    def deleted_meanwhile(*args: Any, **more: Any) -> None:
        monkeypatch.setattr(world.runtime, "restore", restore)
        world.sessions.delete(uuid)
        world.lifecycle.carry_out(*world.tasks.sent.pop()[1])
        more["check"]()
        raise AssertionError("the restore went on")

    monkeypatch.setattr(world.runtime, "restore", deleted_meanwhile)
    assert world.work() == [task_queue.RESTORE, task_queue.TEARDOWN]
    assert world.get(uuid).status is Status.TERMINATED


@pytest.mark.parametrize("newer", ["sleep", "wake"])
def test_a_restore_goes_on_for_whoever_needs_the_files_too(world: World, newer: str) -> None:
    uuid = world.sessions.restore(world.delete(world.active()).backup).uuid

    def superseded() -> None:
        world.sessions.sleep(uuid)
        if newer == "wake":
            world.sessions.wake(uuid)

    world.runtime.meanwhile["restore"] = superseded
    world.work()
    assert world.runtime.called.count("restore") == 1
    up = newer == "wake"
    assert world.runtime.workspaces[uuid].running is up
    assert world.get(uuid).status is (Status.WAKING if up else Status.SLEEPING)


def test_a_forced_deletion_does_not_wait_for_a_requested_backup(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = world.active()
    world.sessions.request_backup(uuid)
    world.tasks.lose_all()

    def forced(uuid: str, name: str, **more: Any) -> BackupSummary:
        world.sessions.delete(uuid, backup=False)
        world.lifecycle.carry_out(*world.tasks.sent.pop()[1])
        more["check"]()
        raise AssertionError("the backup went on")

    monkeypatch.setattr(world.runtime, "backup", forced)
    world.tasks.send(task_queue.BACKUP, uuid)
    world.work()
    assert world.get(uuid).status is Status.TERMINATED
    assert world.core.backups.count() == 0


def test_a_start_that_was_undone_by_a_stop_of_the_service_is_made_again(world: World) -> None:
    """Its processes went with the service, and its worker had done all there was to do."""
    uuid = world.asleep()
    generation = world.sessions.wake(uuid).generation
    world.work()
    world.runtime.stop(uuid, generation)
    world.observer.apply(Snapshot((), unwished=True))
    assert world.work() == [task_queue.WAKE]
    assert world.up(uuid).status is Status.ACTIVE


@pytest.mark.parametrize(
    ("idle_timeouts", "status", "runs"), [(0, Status.WAKING, True), (2, Status.SLEEPING, False)], ids=["used", "idle"]
)
def test_an_active_session_comes_back_after_a_stop_of_the_service_unless_it_is_idle_by_then(
    world: World, idle_timeouts: int, status: Status, runs: bool
) -> None:
    uuid = world.active()
    world.runtime.stop(uuid, world.get(uuid).generation)
    world.now += idle_timeouts * world.settings.idle_timeout
    world.observer.apply(Snapshot((), unwished=True))
    assert world.get(uuid).status is status
    world.work()
    assert world.runtime.workspaces[uuid].running is runs


def test_one_whose_prompt_was_not_finished_comes_back_however_it_went(world: World) -> None:
    """Somebody scaled it down on the cluster while the agent worked on a prompt."""
    uuid = world.active()
    taken = world.core.inbox.take(uuid, "hi", now=world.now)
    world.core.inbox.delivered(uuid, taken.prompt.id, world.now)
    world.runtime.stop(uuid, world.get(uuid).generation)
    world.now += 2 * world.settings.idle_timeout
    world.observer.apply(Snapshot(()))
    assert world.get(uuid).status is Status.WAKING


def test_what_is_seen_of_a_moment_ago_makes_no_second_start(world: World) -> None:
    uuid = world.asleep()
    world.sessions.wake(uuid)
    world.work()
    world.look(uuid, running=False)
    assert world.tasks.sent == []


def test_a_requested_backup_names_what_it_could_not_read_and_a_deletion_stops_at_it(world: World) -> None:
    """Until it is told that a partial backup will do."""
    uuid = world.active()
    workspace = world.runtime.workspaces[uuid]
    workspace.files |= {"kept": b"1", "closed": b"2"}
    workspace.unreadable.add("closed")
    assert world.back_up(uuid).backup_lacks == {"unreadable": ["closed"]}
    failed = world.delete(uuid)
    assert (failed.status, failed.reason_code) == (Status.FAILED, "backup_incomplete")
    assert workspace.files.keys() == {"kept", "closed"}
    gone = world.delete(uuid, partial=True)
    assert gone.status is Status.TERMINATED
    assert world.runtime.backups[gone.backup].keys() == {"kept"}


def test_a_deletion_that_takes_a_partial_backup_replaces_one_that_does_not(world: World) -> None:
    uuid = world.active()
    first = world.sessions.delete(uuid).generation
    assert world.sessions.delete(uuid, partial=True).generation == first + 1
    assert world.sessions.delete(uuid).generation == first + 1
    assert world.get(uuid).delete_partial
