"""What the observer makes of things that only a cluster does: scaling by others, and the steps of a start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import pytest

from app.core.errors import RetryableError, RuntimeUnavailable
from app.core.redis import task_queue
from app.core.redis.counters import START_BUCKETS
from app.core.sessions.model import Status, phases_since
from tests.fakes import raising
from tests.waiting import PATIENCE, wait_for
from tests.world import World
from workers.runtime.base import Snapshot


def waking(world: World) -> str:
    """A session that slept, and whose processes were started again."""
    uuid = world.asleep()
    world.sessions.wake(uuid)
    world.work()
    return uuid


def test_a_session_that_someone_else_scaled_up_is_woken(world: World) -> None:
    """KEDA found a prompt, or somebody used kubectl: it is adopted by an intent of ours."""
    uuid = world.asleep()
    generation = world.get(uuid).generation
    workspace = world.runtime.workspaces[uuid]
    workspace.running = workspace.ready = True
    world.look(uuid)
    assert world.get(uuid).status is Status.WAKING
    world.work()
    world.look(uuid)
    woken = world.get(uuid)
    assert (woken.status, woken.generation, workspace.generation) == (Status.ACTIVE, generation + 1, generation + 1)


def test_a_workspace_that_its_machine_should_look_at_again_is_a_workers_task(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The observer itself changes nothing where the workspaces run."""
    uuid, stop = world.active(), Event()

    def watch(until: Event, alive: Callable[[], None], look_again: Callable[[str], None]) -> Iterator[Snapshot]:
        look_again(uuid)
        until.set()
        yield Snapshot(tuple(world.runtime.observe_all()))

    monkeypatch.setattr(world.runtime, "watch", watch)
    world.runtime.calls.clear()
    world.observer.run(stop)
    assert world.tasks.sent == [(task_queue.LOOK_AGAIN, (uuid,))]
    assert set(world.runtime.called) <= {"ping"}
    world.work()
    assert world.runtime.calls[-1] == ("look_again", uuid, 0)


def test_a_session_whose_deployment_someone_deleted_is_brought_up_again(world: World) -> None:
    """Nobody asked for it to sleep, as somebody does who scales it down."""
    uuid = world.active()
    world.runtime.stop(uuid, world.get(uuid).generation)
    world.look(uuid, deleted=True)
    assert world.get(uuid).status is Status.WAKING
    assert world.up(uuid).status is Status.ACTIVE


def test_a_start_whose_deployment_someone_deleted_is_made_again(world: World) -> None:
    uuid = waking(world)
    generation = world.get(uuid).generation
    world.runtime.stop(uuid, generation)
    world.look(uuid, deleted=True)
    assert world.tasks.sent == [(task_queue.WAKE, (uuid, generation))]


def test_a_deployment_that_a_deletion_takes_away_is_not_brought_up_again(world: World) -> None:
    uuid = world.active()
    world.sessions.delete(uuid)
    world.look(uuid, running=False, ready=False, deleted=True)
    assert world.get(uuid).status is Status.TERMINATING


def test_a_session_that_is_still_being_put_to_sleep_is_not_woken(world: World) -> None:
    """Its processes are those of the intent before."""
    uuid = world.active()
    world.sessions.sleep(uuid)
    world.look(uuid)
    assert world.get(uuid).status is Status.SLEEPING


def test_the_steps_of_a_start_become_part_of_the_record(world: World) -> None:
    """In ms since the request, beside those that the worker noted."""
    uuid, requested = waking(world), world.now
    world.now += 1.5
    world.runtime.become_ready(uuid)
    world.look(uuid, phases={"scheduled": requested + 0.05, "volume": requested + 0.4})
    phases = list(world.get(uuid).phases.items())
    assert phases[0][0] == "enqueued"
    assert phases[1:] == [("scheduled", 50), ("volume", 400), ("ready", 1500)]


def test_a_start_is_told_while_it_goes_on(world: World) -> None:
    """One event for each look that found something new; what is known stays as it is."""
    uuid = waking(world)
    for phases in ({"scheduled": 0.1}, {"scheduled": 0.2, "volume": 0.4, "image": 0.5}, {"image": 0.6}):
        world.look(uuid, ready=False, phases={name: world.now + after for name, after in phases.items()})
    assert world.get(uuid).phases == {"enqueued": 0, "scheduled": 100, "volume": 400, "image": 500}
    assert [each["phase"] for each in world.told(uuid, "phase")][-3:] == ["enqueued", "scheduled", "image"]


def test_steps_seen_after_it_is_up_change_nothing(world: World) -> None:
    """They are of a start that is over."""
    uuid = world.active()
    before = world.get(uuid).phases
    world.look(uuid, ready=False, phases={"scheduled": world.now + 1})
    assert world.get(uuid).phases == before


def test_no_phase_is_earlier_than_the_one_before_it() -> None:
    """Clocks differ between machines, and a pod may be older than the request that adopts it."""
    found = phases_since({"enqueued": 9}, {"scheduled": 90.0, "started": 100.5}, 100.0)
    assert found == {"enqueued": 9, "scheduled": 9, "started": 500}


def test_each_start_is_counted_by_kind_and_phase(world: World) -> None:
    """For the metrics; one that came up by itself after a failure was none."""
    uuid = waking(world)
    world.now += 0.4
    world.up(uuid)
    starts = world.core.counters.starts()
    assert set(starts) == {(kind, phase) for kind in ("create", "wake") for phase in ("enqueued", "ready")}
    woken = starts[("wake", "ready")]
    assert (sum(woken.counts), woken.counts[START_BUCKETS.index(0.5)], woken.total) == (1, 1, 0.4)
    world.lifecycle.fail(world.get(uuid), "gone for a moment")
    world.look(uuid)
    assert world.get(uuid).status is Status.ACTIVE
    assert world.core.counters.starts() == starts


@pytest.mark.slow
def test_a_runtime_that_does_not_answer_silences_the_observer(world: World) -> None:
    """Nothing happens in one that hangs, either; `/health` goes by the observer's age."""
    observer, stop = world.observer, Event()
    asked = []

    def hang() -> None:
        asked.append(world.core.heartbeats.observer_age(world.now))
        if len(asked) == 2:
            stop.set()
        raise RuntimeUnavailable("The API server can't be reached.")

    world.runtime.ping = hang  # type: ignore[method-assign]
    observer.run(stop)
    assert asked[:2] == [None, None]
    world.runtime.ping = lambda: None  # type: ignore[method-assign]
    stop.clear()
    thread = Thread(target=observer.run, args=(stop,))
    thread.start()
    wait_for(lambda: world.core.heartbeats.observer_age(world.now) == 0.0, "the observer's heartbeat")
    stop.set()
    thread.join(PATIENCE)


def test_a_workspace_that_was_just_made_is_not_adopted_yet(world: World) -> None:
    """For a minute its record may be on its way; then it counts as lost."""
    uuid = world.asleep()
    world.core.redis.flushall()
    seen = world.runtime.observe(uuid)
    assert seen is not None
    young = replace(seen, created_at=world.now - 59.0)
    world.runtime.observe_all = lambda: iter([young])  # type: ignore[method-assign]
    world.sweeps.reconcile()
    assert world.core.store.find([uuid]) == []
    world.now += 1.0
    world.sweeps.reconcile()
    assert world.get(uuid).user_id == "ada"


def test_an_agent_that_does_not_run_is_told_and_fails_nothing(world: World) -> None:
    """Its editor works. The reason goes when the agent is back."""
    uuid = world.active()
    world.look(uuid, trouble="The agent ended unexpectedly (status 1).")
    told = world.get(uuid)
    assert (told.status, told.reason) == (Status.ACTIVE, "The agent ended unexpectedly (status 1).")
    world.look(uuid)
    assert (world.get(uuid).status, world.get(uuid).reason) == (Status.ACTIVE, "")


NO_ROOM = "No machine of the cluster has room for the workspace: 0/1 nodes are available: 1 Insufficient cpu."
FAILED_FOR_IT: dict[str, Any] = {
    "running": False,
    "began": 0.0,
    "failure": NO_ROOM,
    "waiting": NO_ROOM,
    "code": "no_capacity",
}
"""What the watch tells of a start that waited for too long."""


def waiting(world: World) -> str:
    """A session whose start waits, and is seen to."""
    uuid = waking(world)
    wait_on(world, uuid, NO_ROOM)
    return uuid


def wait_on(world: World, uuid: str, text: str, code: str = "no_capacity") -> None:
    workspace = world.runtime.workspaces[uuid]
    workspace.waiting, workspace.code = text, code if text else ""
    world.look(uuid)


def state(world: World, uuid: str) -> tuple[Status, str, str]:
    record = world.get(uuid)
    return record.status, record.reason, record.reason_code


def test_what_a_start_waits_for_is_its_reason_until_it_goes_on(world: World) -> None:
    """It fails nothing; whoever listens is told of both, and not of the same in other words: the scheduler counts the
    nodes anew with every one that comes or goes."""
    uuid = waiting(world)
    assert state(world, uuid) == (Status.WAKING, NO_ROOM, "no_capacity")
    before = world.told(uuid, "state")
    wait_on(world, uuid, NO_ROOM.replace("1", "2"))
    assert world.get(uuid).reason == NO_ROOM.replace("1", "2")
    assert world.told(uuid, "state") == before
    wait_on(world, uuid, "")
    assert state(world, uuid) == (Status.WAKING, "", "")
    assert world.told(uuid, "state")[-2:] == [
        {"status": "waking", "reason": NO_ROOM, "reason_code": "no_capacity"},
        {"status": "waking", "reason": None, "reason_code": None},
    ]


def test_a_session_that_waits_becomes_active_without_the_reason(world: World) -> None:
    uuid = waiting(world)
    workspace = world.runtime.workspaces[uuid]
    workspace.waiting = workspace.code = ""
    world.up(uuid)
    assert state(world, uuid) == (Status.ACTIVE, "", "")


def test_a_session_that_waits_can_be_put_to_sleep(world: World) -> None:
    """What is seen of its start after that is no reason of anything any more."""
    uuid = waiting(world)
    world.sessions.sleep(uuid)
    world.look(uuid)
    assert state(world, uuid) == (Status.SLEEPING, "", "")


def test_a_start_that_waited_for_too_long_has_failed_and_says_the_same(world: World) -> None:
    """And comes back by itself, as any that answers after all."""
    uuid = waiting(world)
    world.look(uuid, **FAILED_FOR_IT)
    assert state(world, uuid) == (Status.FAILED, NO_ROOM, "no_capacity")
    workspace = world.runtime.workspaces[uuid]
    workspace.waiting = workspace.code = ""
    world.up(uuid)
    assert state(world, uuid) == (Status.ACTIVE, "", "")


@pytest.mark.parametrize(
    ("waits_for", "ready"),
    [("", True), ("", False), ("The workspace's volume is not available.", False)],
    ids=["answers", "runs", "waits for something else"],
)
def test_a_start_fails_for_its_waiting_only_where_another_look_shows_it(
    world: World, waits_for: str, ready: bool
) -> None:
    """What feeds the watch may have been silent: the sweep judges a start whose editor runs."""
    uuid = waiting(world)
    workspace = world.runtime.workspaces[uuid]
    workspace.waiting, workspace.code, workspace.ready = waits_for, "", ready
    world.look(uuid, ready=False, **FAILED_FOR_IT)
    assert world.get(uuid).status is Status.WAKING


def test_a_start_that_cannot_be_looked_at_again_does_not_fail_for_its_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = waiting(world)
    seen = world.runtime.observe(uuid)
    assert seen is not None
    monkeypatch.setattr(world.runtime, "observe", raising(RetryableError("The API server can't be reached.")))
    with pytest.raises(RetryableError):
        world.observer.apply(replace(seen, **FAILED_FOR_IT))
    assert world.get(uuid).status is Status.WAKING


def test_an_active_session_whose_successor_finds_no_room_is_waking(world: World) -> None:
    """Its machine was drained: it is not there for its user, and says why."""
    uuid = world.active()
    world.runtime.workspaces[uuid].ready = False
    wait_on(world, uuid, NO_ROOM)
    assert world.get(uuid).status is Status.WAKING
    world.work()
    world.look(uuid)
    told = world.get(uuid)
    assert (told.status, told.reason_code) == (Status.WAKING, "no_capacity")


def test_a_session_that_becomes_active_at_that_moment_is_not_said_to_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The observer's look at the record is a moment old."""
    uuid = waking(world)
    old = world.get(uuid)
    world.up(uuid)
    world.runtime.workspaces[uuid].ready = False
    with monkeypatch.context() as moment:
        moment.setattr(world.core.store, "get", lambda uuid: old)
        wait_on(world, uuid, NO_ROOM)
    assert (world.get(uuid).status, world.get(uuid).reason) == (Status.ACTIVE, "")
