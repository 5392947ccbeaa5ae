"""Rollbacks to a restore point: the steps, and what a broken off one leaves to the next."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.core.errors import (
    ArchiveError,
    BackupNotFound,
    IllegalState,
    RestorePointNotFound,
    RestorePointsOff,
    RetryableError,
    StateUnavailable,
)
from app.core.prompts.history_store import Checkpoint
from app.core.prompts.inbox import ROLLED_BACK, ROLLED_BACK_KEPT, State
from app.core.redis import keys, task_queue
from app.core.restore_points.names import reference
from app.core.sessions.attempts import MAX_ATTEMPTS
from app.core.sessions.model import Record, Status, iso
from tests.fake_agent import FakeAgent
from tests.fakes import raising
from tests.unit.workers.sidecars import sidecars, store_sidecar
from tests.world import World
from workers.lifecycle.stored_points import StoredPoints
from workers.runtime.base import RestoredPoint

BEFORE, AFTER = {"a.txt": b"before"}, {"a.txt": b"after"}


@pytest.fixture
def world(saving_world: World) -> World:
    return saving_world


def with_point(world: World) -> tuple[str, str]:
    """An active session with the files `AFTER`, and its restore point with those of `BEFORE`."""
    uuid = world.active()
    world.files(uuid).update(BEFORE)
    point = world.save(uuid)
    world.now += 60
    world.files(uuid).update(AFTER)
    return uuid, point.id


def rolling_back(world: World) -> tuple[str, str]:
    """The same, after a rollback to that point was asked for."""
    uuid, point_id = with_point(world)
    world.core.going_back.roll_back(uuid, point_id)
    return uuid, point_id


def roll_back(world: World, uuid: str, point_id: str) -> Record:
    """Of an active session, to its end."""
    world.core.going_back.roll_back(uuid, point_id)
    return world.up(uuid)


def test_an_active_session_is_stopped_saved_restored_and_started(world: World) -> None:
    uuid, point_id = with_point(world)
    world.runtime.calls.clear()
    asked = world.core.going_back.roll_back(uuid, point_id)
    assert (asked.status, asked.task, asked.rollback_to) == (Status.WAKING, task_queue.ROLLBACK, point_id)
    assert world.work() == [task_queue.ROLLBACK]
    assert world.runtime.called == ["stop", "make_point", "restore", "start"]
    record = world.up(uuid)
    assert (record.status, record.rollback_to, record.restore_from) == (Status.ACTIVE, "", "")
    assert world.files(uuid) == BEFORE
    saved = world.core.restore_points.get(uuid, record.rolled_back["saved"])
    assert saved is not None and saved.trigger == "rollback"
    assert world.runtime.points[reference(uuid, saved.id)].files == AFTER
    told = world.told(uuid, "rolled_back")
    assert [(each["status"], each["restore_point"], each["saved"]) for each in told] == [("done", point_id, saved.id)]


def test_a_sleeping_session_sleeps_on_and_is_saved_again(world: World) -> None:
    """The newest restore point has the files from before the rollback until then."""
    uuid, point_id = with_point(world)
    world.sleep(uuid)
    world.now += 60
    world.core.going_back.roll_back(uuid, point_id)
    assert world.work() == [task_queue.ROLLBACK, task_queue.POINT]
    record = world.get(uuid)
    assert (record.status, record.settled) == (Status.SLEEPING, record.generation)
    assert world.files(uuid) == BEFORE and not world.runtime.workspaces[uuid].running
    assert world.runtime.points[reference(uuid, world.newest(uuid).id)].files == BEFORE
    assert record.rolled_back["files_of"] == iso(world.core.restore_points.get(uuid, point_id).created_at)  # type: ignore[union-attr]


def test_the_rollback_can_be_undone_and_repeated(world: World) -> None:
    """Also to the same point: what a volume notes of a restore tells them apart."""
    uuid, point_id = rolling_back(world)
    world.up(uuid)
    saved = world.get(uuid).rolled_back["saved"]
    for target, content in ((saved, AFTER), (point_id, BEFORE), (saved, AFTER)):
        world.now += 60
        roll_back(world, uuid, target)
        assert world.files(uuid) == content
    assert world.get(uuid).rollbacks == 4


@pytest.mark.parametrize(
    ("asleep", "step"),
    [(asleep, step) for asleep in (False, True) for step in ("stop", "make_point", "restore")]
    + [(False, "start"), (True, "renew")],
)
def test_a_worker_that_is_killed_at_a_step_is_made_up_for(world: World, asleep: bool, step: str) -> None:
    uuid, point_id = with_point(world)
    if asleep:
        world.sleep(uuid)
    world.core.going_back.roll_back(uuid, point_id)
    world.runtime.errors[step] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        world.work()
    world.catch_up()
    record = world.get(uuid) if asleep else world.up(uuid)
    assert (record.status, record.rollback_to) == (Status.SLEEPING if asleep else Status.ACTIVE, "")
    assert world.files(uuid) == BEFORE
    points = [world.runtime.points[reference(uuid, each.id)].files for each in world.core.restore_points.of(uuid)]
    assert AFTER in points


def test_a_worker_that_is_killed_after_the_restore_only_completes_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written since is not undone."""
    uuid, point_id = rolling_back(world)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(world.core.inbox, "roll_back", raising(KeyboardInterrupt()))
        world.work()
    assert world.files(uuid) == BEFORE
    world.files(uuid)["b.txt"] = b"since"
    world.catch_up()
    assert world.files(uuid) == BEFORE | {"b.txt": b"since"}
    assert world.get(uuid).rollback_to == ""


def test_a_wake_a_sleep_and_a_prompt_go_on_with_it(world: World) -> None:
    uuid, point_id = rolling_back(world)
    assert (world.sleep(uuid).status, world.files(uuid)) == (Status.SLEEPING, BEFORE)
    world.files(uuid).update(AFTER)
    world.core.going_back.roll_back(uuid, point_id)
    world.now += 1
    taken = world.sessions.prompt(uuid, "go on")
    assert taken.record is not None and taken.record.status is Status.WAKING
    assert (world.up(uuid).status, world.files(uuid)) == (Status.ACTIVE, BEFORE)
    assert world.core.inbox.get(uuid, taken.prompt.id).state is State.QUEUED


def test_a_deletion_wins(world: World) -> None:
    uuid, point_id = rolling_back(world)
    record = world.delete(uuid)
    assert record.status is Status.TERMINATED
    assert world.runtime.backups[record.backup] == AFTER
    with pytest.raises(IllegalState):
        world.core.going_back.roll_back(uuid, point_id)


def test_a_point_without_data_leaves_everything_as_it_is(world: World) -> None:
    uuid, point_id = rolling_back(world)
    world.runtime.errors["restore"] = ArchiveError("None of this session's restore points is whole.")
    record = world.up(uuid)
    assert (record.status, record.rollback_to, record.restore_from) == (Status.ACTIVE, "", "")
    assert "whole" in record.rolled_back["error"]
    assert world.files(uuid) == AFTER


def test_one_that_was_called_off_is_not_made_up_for_when_redis_is_lost(world: World) -> None:
    """The volume names no restore that is still due, so that its files are saved again, and stay."""
    uuid, point_id = rolling_back(world)
    del world.runtime.points[reference(uuid, point_id)]
    world.work()
    assert (world.get(uuid).restore_from, world.runtime.workspaces[uuid].identity.restore_from) == ("", "")


def test_a_store_that_stays_away_calls_it_off(world: World) -> None:
    uuid, point_id = rolling_back(world)
    for _ in range(MAX_ATTEMPTS):
        world.runtime.errors["make_point"] = RetryableError("The store is away.")
        if world.get(uuid).tries == MAX_ATTEMPTS - 1:
            break
        with pytest.raises(RetryableError):
            world.work()
        world.now += world.settings.stale_after + 1
        world.sweeps.stale()
    assert (world.up(uuid).status, world.files(uuid)) == (Status.ACTIVE, AFTER)
    assert "away" in world.get(uuid).rolled_back["error"]


def test_files_that_cannot_be_read_call_it_off(world: World) -> None:
    """The state before would lack them. One that could not be read earlier, and can be now, is looked at again."""
    uuid, point_id = with_point(world)
    world.runtime.workspaces[uuid].unreadable |= AFTER.keys()
    record = roll_back(world, uuid, point_id)
    assert (record.status, world.files(uuid)) == (Status.ACTIVE, AFTER)
    assert f"lost ({len(AFTER)})" in record.rolled_back["error"]
    world.runtime.workspaces[uuid].unreadable.clear()
    world.core.going_back.roll_back(uuid, point_id)
    world.work()
    assert world.files(uuid) == BEFORE


def test_it_waits_for_a_backup(world: World) -> None:
    uuid, point_id = rolling_back(world)
    with world.core.leases.hold(keys.BACKUP_LEASE.format(uuid=uuid)) as held:
        assert held
        world.work()
        assert world.get(uuid).rollback_to == point_id
    world.lifecycle.resend_waiting(uuid)
    world.work()
    assert world.files(uuid) == BEFORE


def test_retention_leaves_the_point_that_is_needed(world: World) -> None:
    uuid, point_id = with_point(world)
    assert world.core.restore_points.needed(uuid) == []
    world.core.redis.hset(keys.IN_USE, "another1", reference(uuid, point_id))
    assert world.core.restore_points.needed(uuid, "p000000000000000") == ["p000000000000000", point_id]


def test_a_lost_volume_is_replaced_by_the_target(world: World) -> None:
    uuid, point_id = rolling_back(world)
    del world.runtime.workspaces[uuid]
    record = world.up(uuid)
    assert (record.status, record.files_of, record.rolled_back["restore_point"]) == (Status.ACTIVE, 0.0, point_id)
    assert world.files(uuid) == BEFORE


def test_a_session_without_files_is_brought_back_by_it(world: World) -> None:
    uuid, point_id = with_point(world)
    world.lifecycle.fail(world.get(uuid), "Its files are gone.", provisioned=False)
    del world.runtime.workspaces[uuid]
    assert (roll_back(world, uuid, point_id).status, world.files(uuid)) == (Status.ACTIVE, BEFORE)


def test_points_stay_while_a_fork_is_restored_from_one(world: World) -> None:
    """Nor does a session begin with a point that goes."""
    uuid, point_id = with_point(world)
    point = world.core.restore_points.get(uuid, point_id)
    assert point is not None
    fork = world.core.going_back.fork(world.get(uuid), point, "ben", made_by="")
    world.tasks.lose_all()
    store_sidecar(world, point)
    assert world.delete(uuid).status is Status.TERMINATED
    assert sidecars(world, uuid).ids() == [point_id]
    with pytest.raises(BackupNotFound):
        world.create("ben", restore_from=reference(uuid, point_id))
    world.sessions.resend(world.get(fork.uuid))
    world.work()
    assert world.files(fork.uuid) == BEFORE
    StoredPoints(world.core).finish()
    assert sidecars(world, uuid).ids() == []


def test_only_who_goes_back_has_its_conversation_end_with_the_files(world: World) -> None:
    """A rollback and a fork. A lost volume is brought back with all that was said."""
    talk = {"../.session/history.json": b"[]"}
    uuid = world.active()
    world.files(uuid).update(talk)
    point = world.save(uuid)
    fork = world.core.going_back.fork(world.get(uuid), point, made_by="").uuid
    world.work()
    roll_back(world, uuid, point.id)
    mark = {f"../.session/until-{point.created_at:.3f}": b""}
    assert (world.files(fork), world.files(uuid)) == (talk | mark, talk | mark)
    world.files(uuid).pop(next(iter(mark)))
    world.now += 60
    world.save(uuid)
    del world.runtime.workspaces[uuid]
    world.lifecycle.check_files(uuid)
    world.work()
    assert world.files(uuid) == talk


def test_a_point_that_fell_back_is_told_and_marked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid, point_id = with_point(world)
    older = RestoredPoint("p00000000000older", 5.0, fell_back=True)
    monkeypatch.setattr(world.runtime, "restore", lambda *_, **__: older)
    world.core.going_back.roll_back(uuid, point_id)
    world.work()
    told = world.get(uuid).rolled_back
    assert (told["restore_point"], told["fell_back"]) == (older.id, True)
    point = world.core.restore_points.get(uuid, point_id)
    assert point is not None and point.broken


# Prompts and the conversation


def test_later_prompts_are_marked_and_unfinished_ones_end(world: World) -> None:
    uuid = world.active()
    inbox = world.core.inbox
    for name in ("early", "late", "open"):
        world.sessions.prompt(uuid, f"do {name}", name)
    inbox.delivered(uuid, "early", world.now)
    inbox.finish(uuid, "early", response={"text": "done"}, now=world.now)
    world.now += 10
    point = world.save(uuid)
    assert point.message_id == "early"
    world.now += 10
    inbox.delivered(uuid, "late", world.now)
    inbox.finish(uuid, "late", response={"text": "done"}, now=world.now)
    inbox.delivered(uuid, "open", world.now)
    world.core.going_back.roll_back(uuid, point.id)
    world.now += 5
    world.sessions.prompt(uuid, "do after", "after")
    world.work()
    found = {name: inbox.get(uuid, name) for name in ("early", "late", "open", "after")}
    assert {name: each.state for name, each in found.items()} == {
        "early": State.PROCESSED,
        "late": State.PROCESSED,
        "open": State.FAILED,
        "after": State.QUEUED,
    }
    assert {name for name, each in found.items() if each.rolled_back_at} == {"late", "open"}
    assert found["open"].reason == ROLLED_BACK
    assert [each.id for each in inbox.unfinished(uuid)] == ["after"]
    # Sent again, they are answered and not run.
    assert world.sessions.prompt(uuid, "do open", "open").record is None
    assert not inbox.finish(uuid, "open", response={"text": "late report"}, now=world.now)


def test_nothing_is_delivered_to_the_agent_that_is_about_to_be_stopped(world: World, agent: FakeAgent) -> None:
    """It would lose what came after the rollback was asked for. What it had ended all the same is undone with its
    files."""
    uuid, point_id = with_point(world)
    world.agent_calls(uuid, agent)
    world.core.going_back.roll_back(uuid, point_id)
    world.now += 1
    for name in ("ended", "later"):
        world.sessions.prompt(uuid, "do", name)
    world.core.delivery.deliver(uuid)
    assert agent.accepted == []
    world.core.inbox.finish(uuid, "ended", response={"text": "done"}, now=world.now)
    world.work()
    assert world.core.inbox.get(uuid, "ended").rolled_back_at
    assert [each.id for each in world.core.inbox.unfinished(uuid)] == ["later"]
    world.up(uuid)
    world.agent_calls(uuid, agent, "boot-2")
    world.core.delivery.deliver(uuid)
    assert agent.accepted == ["later"]


def test_the_stored_conversation_is_cut_at_the_same_moment(world: World) -> None:
    uuid, point_id = with_point(world)
    point = world.core.restore_points.get(uuid, point_id)
    assert point is not None
    messages = [
        {"id": name, "role": role, "content": name, "at": iso(point.created_at + seconds)}
        for name, seconds in (("one", -20.0), ("two", 20.0))
        for role in ("user", "assistant")
    ]
    # As app/agent/model_context.py has it: without times.
    context = [{"role": each["role"], "content": each["content"], "through": n} for n, each in enumerate(messages, 1)]
    world.core.history_store.write(uuid, Checkpoint(messages, context, {"queue": [{"id": "two"}], "turns": 2}))
    world.core.going_back.roll_back(uuid, point_id)
    world.work()
    kept = world.core.history_store.read(uuid)
    assert kept is not None
    assert [each["id"] for each in kept.history] == ["one", "one"]
    assert ([each["content"] for each in kept.context], dict(kept.metadata)) == (["one", "one"], {"turns": 2})
    assert world.core.history_store.cut(uuid, point.created_at) == 0


def conversation(*prompts: tuple[str, float]) -> Checkpoint:
    """Prompts and answers at these times."""
    return Checkpoint(
        [
            {"id": name, "role": role, "content": f"do {name}", "at": iso(at)}
            for name, at in prompts
            for role in ("user", "assistant")
        ]
    )


def expire(world: World, uuid: str, name: str) -> None:
    """`PROMPT_TTL` has passed since it ended."""
    world.core.redis.delete(keys.PROMPT.format(uuid=uuid, id=name))


@pytest.mark.parametrize("killed", [False, True])
def test_what_was_rolled_back_never_runs_again_however_late_it_is_sent(
    world: World, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """Also what had expired before the rollback, so that only the conversation knew it; and where the rollback is
    repeated, as it was interrupted."""
    uuid, point_id = with_point(world)
    world.core.history_store.write(uuid, conversation(("one", world.now - 90), ("two", world.now - 30)))
    world.sessions.prompt(uuid, "do three", "three")
    world.core.inbox.finish(uuid, "three", response={"text": "done"}, now=world.now)
    world.core.going_back.roll_back(uuid, point_id)
    if killed:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(world.core.inbox, "roll_back", raising(KeyboardInterrupt()))
            world.work()
        world.now += world.settings.stale_after + 1
        world.sweeps.stale()
    world.up(uuid)
    expire(world, uuid, "three")
    world.agent_calls(uuid, agent)
    for name in ("one", "two", "three", "four"):
        world.sessions.prompt(uuid, f"do {name}", name)
    world.core.delivery.deliver(uuid)
    assert agent.accepted == ["one", "four"], "the agent itself knows `one`"
    for name in ("two", "three"):
        prompt = world.core.inbox.get(uuid, name)
        assert (prompt.state, prompt.reason, prompt.rolled_back_at) == (State.FAILED, ROLLED_BACK, world.now)


def test_what_an_agent_undid_does_not_run_after_its_volume_went_back(world: World, agent: FakeAgent) -> None:
    """Then the agent has forgotten it."""
    uuid, point_id = with_point(world)
    world.sessions.prompt(uuid, "do it", "undone")
    world.core.inbox.end_as_rolled_back(uuid, ["undone", "*"], world.now)
    expire(world, uuid, "undone")
    roll_back(world, uuid, point_id)
    world.agent_calls(uuid, agent)
    world.sessions.prompt(uuid, "do it", "undone")
    world.core.delivery.deliver(uuid)
    assert agent.accepted == []


def test_only_the_newest_that_were_rolled_back_are_remembered(world: World) -> None:
    """Each once, however often a rollback is interrupted; a deleted session's are forgotten."""
    uuid, inbox = world.active(), world.core.inbox
    ids = [f"m{number}" for number in range(ROLLED_BACK_KEPT + 600)]
    for _ in range(2):
        inbox.end_as_rolled_back(uuid, ids, world.now)
    kept = world.core.redis.lrange(keys.UNDONE.format(uuid=uuid), 0, -1)
    assert kept == ids[-ROLLED_BACK_KEPT:]
    inbox.close(uuid, "deleted", world.now)
    assert not world.core.redis.exists(keys.UNDONE.format(uuid=uuid))


# What is refused


def test_what_can_not_be_rolled_back(world: World, make_world: Callable[..., World]) -> None:
    uuid, point_id = with_point(world)
    going_back = world.core.going_back
    with pytest.raises(RestorePointNotFound):
        going_back.roll_back(uuid, "p000000000000000")
    world.core.restore_points.mark_broken(uuid, [point_id])
    with pytest.raises(IllegalState, match="choose another"):
        going_back.roll_back(uuid, point_id)
    with pytest.raises(RestorePointsOff):
        make_world().core.going_back.roll_back(uuid, point_id)


def test_a_change_in_between_is_looked_at_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid, point_id = with_point(world)
    apply = world.core.store.apply
    calls = []

    def changed_once(*given: object) -> object:
        calls.append(given)
        if len(calls) == 1:
            monkeypatch.setattr(world.core.store, "apply", apply)
            world.sessions.sleep(uuid)
            monkeypatch.setattr(world.core.store, "apply", changed_once)
        return apply(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(world.core.store, "apply", changed_once)
    assert world.core.going_back.roll_back(uuid, point_id).status is Status.SLEEPING
    world.work()
    assert (world.get(uuid).status, world.files(uuid)) == (Status.SLEEPING, BEFORE)


def test_redis_that_is_away_counts_no_attempt(world: World) -> None:
    uuid, point_id = rolling_back(world)
    world.runtime.errors["make_point"] = StateUnavailable("away")
    with pytest.raises(StateUnavailable):
        world.work()
    assert world.get(uuid).tries == 0
