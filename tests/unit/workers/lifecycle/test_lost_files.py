"""A volume that is gone: the session comes back by itself, with the files of its newest copy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.core.errors import ArchiveError, FilesGoing, NoSpace, PermanentError, RuntimeUnavailable
from app.core.redis import keys, task_queue
from app.core.restore_points.names import parse, reference
from app.core.sessions.model import Identity, Status
from app.core.sessions.reason_codes import ReasonCode
from app.core.storage.archive_keys import new_key
from tests.fake_agent import FakeAgent, fake_agent
from tests.fakes import FakePoint, raising
from tests.unit.workers.sidecars import store_alone
from tests.world import World
from workers.agents.notices import tell_files
from workers.runtime.base import Observation

FILES = {"a.txt": b"saved"}


@pytest.fixture
def world(saving_world: World) -> World:
    return saving_world


def with_point(world: World, *, beside: str = "another") -> str:
    """An active session, one of whose restore points has `FILES`, maybe beside one of another user."""
    if beside:
        world.active(beside)
    uuid = world.active()
    world.files(uuid).update(FILES)
    world.save(uuid)
    world.now += 60
    return uuid


def only_one(world: World) -> str:
    """A sleeping session with a restore point, beside no other."""
    uuid = with_point(world, beside="")
    world.sleep(uuid)
    return uuid


def lose(world: World, uuid: str) -> None:
    del world.runtime.workspaces[uuid]


def lose_and_restore(world: World, uuid: str) -> None:
    """Somebody looks for its files, and finds none."""
    lose(world, uuid)
    world.lifecycle.check_files(uuid)
    world.work()


def copied(world: World, uuid: str, kind: str) -> str:
    """Make a restore point, or a backup that no point follows, of files that say which, maybe a damaged one; answers
    its name."""
    world.now += 60
    workspace = world.runtime.workspaces[uuid]
    workspace.files["which"] = kind.encode()
    if kind.endswith("point"):
        name = reference(uuid, world.save(uuid).id)
    else:
        workspace.unreadable |= {"a.txt"} if kind == "partial backup" else set()
        world.runtime.errors["make_point"] = ArchiveError("The store refuses.")
        name = world.back_up(uuid).backup
        workspace.unreadable.clear()
    if kind.startswith("damaged"):
        world.runtime.damaged.add(name)
    return name


def which(world: World, uuid: str) -> str:
    return world.files(uuid)["which"].decode()


def test_a_sleeping_session_gets_its_files_and_sleeps_on(world: World) -> None:
    uuid = with_point(world)
    world.sleep(uuid)
    point = world.newest(uuid)
    lose(world, uuid)
    world.now += 60
    world.sweeps.reconcile()
    assert world.get(uuid).reason_code == ReasonCode.FILES_LOST
    assert task_queue.RESTORE in world.work()
    record = world.get(uuid)
    assert (record.status, record.settled, record.restore_from) == (Status.SLEEPING, record.generation, "")
    assert (record.files_of, record.provisioned) == (point.created_at, True)
    assert world.files(uuid) == FILES
    assert not world.runtime.workspaces[uuid].running
    assert [each["restore_from"] for each in world.told(uuid, "files_lost")] == [reference(uuid, point.id)]
    assert [each["fell_back"] for each in world.told(uuid, "files_restored")] == [False]


def test_a_waking_session_wakes_with_its_files(world: World) -> None:
    uuid = with_point(world)
    world.sleep(uuid)
    lose(world, uuid)
    world.sessions.wake(uuid)
    assert world.work() == [task_queue.WAKE, task_queue.RESTORE]
    record = world.up(uuid)
    assert (record.status, record.reason) == (Status.ACTIVE, "")
    assert world.files(uuid) == FILES


def test_a_newest_point_that_is_broken_is_shown_no_longer_and_followed_by_another(world: World) -> None:
    uuid = with_point(world)
    older = world.newest(uuid)
    broken = copied(world, uuid, "damaged point")
    lose_and_restore(world, uuid)
    record = world.up(uuid)
    assert (record.status, record.files_of) == (Status.ACTIVE, older.created_at)
    assert [each["fell_back"] for each in world.told(uuid, "files_restored")] == [True]
    newest = world.newest(uuid)
    assert reference(uuid, newest.id) not in (reference(uuid, older.id), broken)
    assert world.get(uuid).point == newest.id


def test_an_active_session_is_waking_until_its_files_are_there(world: World, agent: FakeAgent) -> None:
    """The observer sees that they are gone. The processes that run without files are stopped, and the editor tells of
    when the new files are."""
    uuid = with_point(world)
    seen = world.runtime.observe(uuid)
    assert seen is not None
    lose(world, uuid)
    code = "files_gone"
    world.observer.apply(Observation(identity=seen.identity, generation=seen.generation, failure="gone", code=code))
    assert world.tasks.sent == [(task_queue.LOST, (uuid,))]
    world.lifecycle.check_files(uuid)
    assert (world.get(uuid).status, world.get(uuid).stopping) == (Status.WAKING, True)
    world.runtime.calls.clear()
    world.work()
    assert world.runtime.called == ["discard", "restore", "start"]
    record = world.up(uuid)
    world.agent_calls(uuid, agent, "boot-2")
    tell_files(world.core, uuid)
    assert record.status is Status.ACTIVE
    assert ("POST", "/notice", {"files_of": round(record.files_of)}) in agent.requests


def test_prompts_that_the_restored_agent_does_not_know_are_delivered_again_and_ended_ones_never(
    world: World, agent: FakeAgent
) -> None:
    uuid = with_point(world)
    world.agent_calls(uuid, agent)
    for name in ("ended", "running"):
        world.sessions.prompt(uuid, name, name)
        world.work()
    world.core.inbox.finish(uuid, "ended", response={"text": "done"}, now=world.now)
    lose(world, uuid)
    world.lifecycle.check_files(uuid)
    world.sessions.prompt(uuid, "later", "later")
    world.up(uuid)
    with fake_agent() as restored:
        world.agent_calls(uuid, restored, "boot-2")
        world.core.delivery.request(uuid)
        world.work()
        assert restored.accepted == ["running", "later"]


def test_a_backup_is_followed_by_a_point_which_has_home_too(world: World) -> None:
    uuid = with_point(world)
    world.files(uuid)["b.txt"] = b"newer"
    world.back_up(uuid)
    lose(world, uuid)
    world.lifecycle.check_files(uuid)
    assert parse(world.get(uuid).restore_from) is not None
    world.work()
    assert world.files(uuid) == {**FILES, "b.txt": b"newer"}


def test_a_backup_of_unchanged_files_gives_way_to_their_point_which_has_home_too(world: World) -> None:
    """No other point is made of them, so it is older than the backup."""
    uuid = with_point(world)
    point = world.newest(uuid)
    world.now += 60
    world.back_up(uuid)
    backup = world.core.backups.newest_of(uuid)
    assert backup is not None and backup.created_at > point.created_at
    lose(world, uuid)
    world.lifecycle.check_files(uuid)
    assert world.get(uuid).restore_from == reference(uuid, point.id)
    world.work()
    assert world.files(uuid) == FILES


def test_the_newer_of_point_and_backup_is_taken(world: World) -> None:
    uuid = with_point(world)
    copied(world, uuid, "backup")
    lose_and_restore(world, uuid)
    assert world.files(uuid) == {**FILES, "which": b"backup"}
    assert world.get(uuid).files_of == world.now


def test_a_session_without_a_copy_is_failed_as_ever(world: World) -> None:
    uuid = world.active()
    lose(world, uuid)
    world.lifecycle.check_files(uuid)
    assert world.work() == []
    assert (world.get(uuid).status, world.get(uuid).reason_code) == (Status.FAILED, "files_gone")
    assert "it has no backup" in world.get(uuid).reason


def test_points_that_cannot_be_read_leave_the_newest_backup(world: World) -> None:
    uuid = with_point(world)
    world.back_up(uuid)
    copied(world, uuid, "point")
    world.runtime.errors["restore"] = ArchiveError("Every restore point is broken.")
    lose_and_restore(world, uuid)
    assert world.files(uuid) == FILES


def test_a_backup_newer_than_the_next_whole_point_is_taken(world: World) -> None:
    """The newest point turns out broken, which is noted."""
    uuid = with_point(world)
    made, at = copied(world, uuid, "backup"), world.now
    copied(world, uuid, "damaged point")
    lose_and_restore(world, uuid)
    assert which(world, uuid) == "backup"
    assert world.get(uuid).files_of == at
    assert [each["restore_from"] for each in world.told(uuid, "files_restored")] == [made]
    assert [each.broken for each in world.core.restore_points.of(uuid)] == [True, False]


@pytest.mark.parametrize(
    ("copies", "fell_back"),
    [
        pytest.param(["backup", "point", "damaged point"], True, id="since the backup, which has home too"),
        pytest.param(["point", "partial backup", "damaged point"], True, id="an incomplete backup keeps none away"),
        pytest.param(["point", "damaged backup", "damaged point"], False, id="older than a damaged backup"),
    ],
)
def test_a_broken_point_gives_way_to_a_whole_one(world: World, copies: list[str], fell_back: bool) -> None:
    uuid = with_point(world)
    for each in copies:
        copied(world, uuid, each)
    lose_and_restore(world, uuid)
    assert (which(world, uuid), world.get(uuid).status) == ("point", Status.WAKING)
    assert [each["fell_back"] for each in world.told(uuid, "files_restored")] == [fell_back]


def test_where_nothing_is_whole_a_wake_begins_with_the_newest_again(world: World) -> None:
    """The store may have it again by then."""
    uuid = with_point(world)
    world.runtime.damaged |= set(world.runtime.points)
    backup = copied(world, uuid, "damaged backup")
    copied(world, uuid, "damaged point")
    lose_and_restore(world, uuid)
    assert (world.get(uuid).status, world.get(uuid).restore_from) == (Status.FAILED, backup)
    world.runtime.damaged.clear()
    world.sessions.wake(uuid)
    world.work()
    assert which(world, uuid) == "damaged backup"


def test_a_rollback_falls_back_as_far_as_it_takes(world: World) -> None:
    """Its user chose the point. What the session has now is in another."""
    uuid = with_point(world)
    copied(world, uuid, "point")
    copied(world, uuid, "backup")
    chosen = parse(copied(world, uuid, "damaged point"))
    assert chosen is not None
    copied(world, uuid, "newest point")
    world.core.store.change(uuid, world.now, files_of=world.now - 1)
    world.core.going_back.roll_back(uuid, chosen[1])
    world.work()
    assert which(world, uuid) == "point"


def test_an_archived_session_comes_back_from_a_newer_backup(world: World) -> None:
    """Its restore point turns out broken; a backup was made when it slept already."""
    uuid = with_point(world)
    copied(world, uuid, "older point")
    world.sleep(uuid)
    copied(world, uuid, "backup")
    point = copied(world, uuid, "damaged point")
    world.now += 60
    world.core.store.change(uuid, world.now, provisioned=False, restore_from=point, archived_at=world.now)
    lose(world, uuid)
    world.sessions.wake(uuid)
    world.work()
    assert which(world, uuid) == "backup"


def test_a_deletion_after_a_loss_keeps_a_backup_that_is_newer_than_the_next_whole_point(world: World) -> None:
    uuid = with_point(world)
    name = copied(world, uuid, "backup")
    copied(world, uuid, "damaged point")
    lose(world, uuid)
    gone = world.delete(uuid)
    assert (gone.status, gone.backup) == (Status.TERMINATED, name)


def test_a_deletion_after_a_loss_backs_up_the_newest_point(world: World) -> None:
    """Restore points end with their session, so its files are put into a backup first."""
    uuid = with_point(world)
    lose(world, uuid)
    gone = world.delete(uuid)
    assert gone.status is Status.TERMINATED
    assert world.runtime.backups[gone.backup] == FILES


def test_a_restore_that_finds_no_room_is_no_broken_point(world: World) -> None:
    uuid = with_point(world)
    world.runtime.errors["restore"] = NoSpace("The disk is full.")
    lose_and_restore(world, uuid)
    assert (world.get(uuid).status, world.get(uuid).reason) == (Status.FAILED, "The disk is full.")
    world.sessions.wake(uuid)
    world.work()
    assert world.files(uuid) == FILES


def test_a_session_that_is_there_is_not_touched(world: World) -> None:
    uuid = with_point(world)
    generation = world.get(uuid).generation
    world.lifecycle.check_files(uuid)
    world.sweeps.reconcile()
    assert world.get(uuid).generation == generation


def test_the_only_session_gets_its_files_too(world: World) -> None:
    uuid = only_one(world)
    world.sweeps.reconcile()
    lose(world, uuid)
    world.sweep(world.sweeps.reconcile)
    assert world.files(uuid) == FILES


def test_nothing_is_lost_in_a_place_that_nobody_has_seen_a_session_in(world: World) -> None:
    """The disk of all of them may be away."""
    uuid = only_one(world)
    lose(world, uuid)
    world.sweeps.reconcile()
    assert world.get(uuid).files_of == 0
    assert world.core.redis.get(keys.PLACE) is None


@pytest.mark.parametrize("named", ["another", ""])
def test_nothing_is_lost_on_another_disk_even_if_somebody_works_there(world: World, named: str) -> None:
    """A disk that is not mounted, or a wrong namespace. Who is active comes back when the right one does, with the
    files that are there."""
    asleep, active = only_one(world), with_point(world)
    world.sweeps.reconcile()
    away = dict(world.runtime.workspaces)
    world.runtime.workspaces.clear()
    world.runtime.named = named
    world.active("new")
    world.sweeps.reconcile()
    world.lifecycle.check_files(asleep)
    world.sessions.restart(world.get(active))
    with pytest.raises(RuntimeUnavailable):
        world.work()
    assert {asleep, active}.isdisjoint(world.runtime.workspaces)
    record = world.get(active)
    assert (record.status, record.reason_code, record.tries) == (Status.WAKING, ReasonCode.WRONG_PLACE, 0)
    world.runtime.workspaces |= away
    world.runtime.named = "here"
    world.lifecycle.carry_out(active, record.generation)
    world.runtime.become_ready(active)
    world.look(active)
    assert (world.get(active).status, world.get(active).reason, world.get(active).files_of) == (Status.ACTIVE, "", 0)


def test_a_place_that_was_replaced_for_good_is_taken_by_hand(world: World) -> None:
    """The first wake restores, and from then on the place is known."""
    uuid = only_one(world)
    world.sweeps.reconcile()
    lose(world, uuid)
    world.runtime.named = "new disk"
    world.core.redis.delete("workspaces:place")
    world.sessions.wake(uuid)
    world.work()
    world.sweeps.reconcile()
    assert world.files(uuid) == FILES
    assert world.core.redis.get(keys.PLACE) == "new disk"


def test_a_place_that_can_not_be_told_stops_no_sweep(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with an older Role. A wake restores as before."""
    uuid = only_one(world)
    world.sweeps.reconcile()
    lose(world, uuid)
    monkeypatch.setattr(world.runtime, "place", raising(PermanentError("namespaces is forbidden")))
    world.sweeps.reconcile()
    assert world.get(uuid).files_of == 0
    world.sessions.wake(uuid)
    world.work()
    assert world.files(uuid) == FILES


def test_no_point_is_made_of_a_session_without_its_files(world: World) -> None:
    uuid = with_point(world)
    lose(world, uuid)
    world.lifecycle.check_files(uuid)
    world.core.store.request_point(uuid, world.now, world.now, "interval")
    world.points.make(uuid)
    assert not world.core.store.pending(keys.POINT_REQUESTS, uuid)
    assert len(world.core.restore_points.of(uuid)) == 1


def test_files_that_go_with_the_workspace_are_saved_before_it_is_stopped(world: World) -> None:
    """Something else deletes the volume, which lasts as long as the workspace runs. So nothing is lost."""
    uuid = with_point(world)
    workspace = world.runtime.workspaces[uuid]
    workspace.files["b.txt"] = b"newer"
    workspace.failure, workspace.code = str(FilesGoing()), FilesGoing.code
    workspace.files_deleted_at = world.now
    world.now += 5
    world.look(uuid)
    assert world.work() == [task_queue.LOST, task_queue.POINT]
    assert world.get(uuid).status is Status.ACTIVE
    discard = world.runtime.discard

    def gone(identity: Identity, generation: int) -> str:
        kept = discard(identity, generation)
        lose(world, uuid)
        return kept

    world.runtime.discard = gone  # type: ignore[method-assign]
    world.sweeps.reconcile()
    assert world.get(uuid).status is Status.WAKING
    world.work()
    assert world.files(uuid) == {**FILES, "b.txt": b"newer"}
    assert world.runtime.workspaces[uuid].running


def test_without_restore_points_files_that_go_with_the_workspace_are_told(make_world: Callable[..., World]) -> None:
    """Nothing saves them but a deletion of the session, which makes a backup."""
    world = make_world()
    uuid = world.active()
    workspace = world.runtime.workspaces[uuid]
    workspace.failure, workspace.code = str(FilesGoing()), FilesGoing.code
    world.look(uuid)
    assert world.work() == [task_queue.LOST]
    record = world.get(uuid)
    assert (record.status, record.reason, record.reason_code) == (Status.FAILED, str(FilesGoing()), FilesGoing.code)


def waiting(world: World, uuid: str) -> None:
    """A wake whose volume can't be mounted."""
    world.sleep(uuid)
    world.sessions.wake(uuid)
    world.work()
    workspace = world.runtime.workspaces[uuid]
    workspace.waiting, workspace.code = "The volume cannot be mounted.", ReasonCode.VOLUME_UNAVAILABLE
    world.look(uuid)
    assert world.get(uuid).reason_code == ReasonCode.VOLUME_UNAVAILABLE


def test_a_volume_out_of_reach_for_long_is_replaced_and_kept(world: World) -> None:
    uuid = with_point(world)
    waiting(world, uuid)
    for _ in range(4):
        world.now += world.settings.volume_lost_after / 5
        # A start without progress fails, if there is no copy.
        world.look(uuid, running=False, failure=world.runtime.workspaces[uuid].waiting)
        world.sweeps.stale()
        assert world.get(uuid).status is Status.WAKING
    assert world.get(uuid).volume == 0
    for _ in range(3):
        world.now += world.settings.volume_lost_after / 2
        world.sweeps.stale()
    world.work()
    record = world.get(uuid)
    assert (record.volume, record.restore_from) == (1, "")
    assert world.files(uuid) == FILES
    assert [each.get("kept") for each in world.told(uuid, "files_lost")] == [None, "volume-0"]


def test_it_is_replaced_after_redis_was_lost_too(world: World) -> None:
    """The record is made again from the workspace, and the look at the store names the point in it."""
    uuid = world.active()
    world.runtime.points[reference(uuid, store_alone(world, uuid, 1))] = FakePoint(world.now + 1, FILES)
    world.core.redis.flushall()
    world.sweeps.index()
    world.sweep(world.sweeps.reconcile)
    world.sweeps.index()
    waiting(world, uuid)
    world.sweep(world.sweeps.stale, world.settings.volume_lost_after + 1)
    assert world.get(uuid).volume == 1
    assert world.files(uuid) == FILES


def test_it_is_replaced_in_time_however_long_an_editor_may_take(make_world: Callable[..., World]) -> None:
    world = make_world(archive_key=new_key(), start_timeout=3_600.0)
    uuid = with_point(world)
    waiting(world, uuid)
    world.sweeps.stale()
    for seconds in (world.settings.stale_after + 1, world.settings.volume_lost_after):
        world.now += seconds
        world.sweeps.stale()
    world.work()
    assert world.get(uuid).volume == 1


def test_without_a_copy_a_volume_out_of_reach_is_waited_for_and_fails_the_start(world: World) -> None:
    uuid = world.active()
    waiting(world, uuid)
    world.core.store.change(uuid, world.now, point="", backup="")
    world.now += 200
    world.look(uuid, running=False, failure=world.runtime.workspaces[uuid].waiting)
    assert world.get(uuid).status is Status.FAILED
