"""What the observer makes of things that only a cluster does: scaling by others, and the steps of a start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Event, Thread
from typing import Any, NoReturn

import pytest

from app.core.errors import RetryableError, RuntimeUnavailable
from app.core.redis import task_queue
from app.core.redis.counters import START_BUCKETS
from app.core.sessions.model import Status, phases_since
from tests.waiting import PATIENCE, wait_for
from tests.world import World
from workers.runtime.base import Observation, Snapshot


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
    calls = len(world.runtime.calls)
    world.observer.run(stop)
    assert world.tasks.sent == [(task_queue.LOOK_AGAIN, (uuid,))]
    assert {name for name, *_ in world.runtime.calls[calls:]} <= {"ping"}
    world.work()
    assert world.runtime.calls[-1] == ("look_again", uuid, 0)


def test_a_session_whose_deployment_someone_deleted_is_brought_up_again(world: World) -> None:
    """Nobody asked for it to sleep, as somebody does who scales it down."""
    uuid = world.active()
    world.runtime.stop(uuid, world.get(uuid).generation)
    seen = world.runtime.observe(uuid)
    assert seen is not None
    world.observer.apply(replace(seen, deleted=True))
    assert world.get(uuid).status is Status.WAKING
    world.work()
    world.runtime.become_ready(uuid)
    world.look(uuid)
    assert world.get(uuid).status is Status.ACTIVE


def test_a_start_whose_deployment_someone_deleted_is_made_again(world: World) -> None:
    uuid = world.asleep()
    generation = world.sessions.wake(uuid).generation
    world.work()
    world.runtime.stop(uuid, generation)
    seen = world.runtime.observe(uuid)
    assert seen is not None
    world.observer.apply(replace(seen, deleted=True))
    assert world.tasks.sent == [(task_queue.WAKE, (uuid, generation))]


def test_a_deployment_that_a_deletion_takes_away_is_not_brought_up_again(world: World) -> None:
    uuid = world.active()
    seen = world.runtime.observe(uuid)
    assert seen is not None
    world.sessions.delete(uuid)
    world.observer.apply(replace(seen, running=False, ready=False, deleted=True))
    assert world.get(uuid).status is Status.TERMINATING


def test_a_session_that_is_still_being_put_to_sleep_is_not_woken(world: World) -> None:
    """Its processes are those of the intent before."""
    uuid = world.active()
    world.sessions.sleep(uuid)
    world.look(uuid)
    assert world.get(uuid).status is Status.SLEEPING


def test_the_steps_of_a_start_become_part_of_the_record(world: World) -> None:
    """In ms since the request, beside those that the worker noted."""
    uuid = world.asleep()
    world.sessions.wake(uuid)
    world.work()
    requested = world.now
    world.now += 1.5
    world.runtime.become_ready(uuid)
    seen = world.runtime.observe(uuid)
    assert seen is not None
    world.observer.apply(replace(seen, phases={"scheduled": requested + 0.05, "volume": requested + 0.4}))
    phases = dict(world.get(uuid).phases)
    assert {name: phases[name] for name in ("scheduled", "volume", "ready")} == {
        "scheduled": 50,
        "volume": 400,
        "ready": 1500,
    }
    assert "enqueued" in phases
    assert list(phases) == ["enqueued", "scheduled", "volume", "ready"]


def test_a_start_is_told_while_it_goes_on(world: World) -> None:
    """One event for each look that found something new; what is known stays as it is."""
    uuid = world.asleep()
    world.sessions.wake(uuid)
    world.work()
    seen = world.runtime.observe(uuid)
    assert seen is not None
    for phases in ({"scheduled": 0.1}, {"scheduled": 0.2, "volume": 0.4, "image": 0.5}, {"image": 0.6}):
        told = {name: world.now + after for name, after in phases.items()}
        world.observer.apply(replace(seen, ready=False, phases=told))
    assert world.get(uuid).phases == {"enqueued": 0, "scheduled": 100, "volume": 400, "image": 500}
    told_of = [event.data["phase"] for event in world.events_of(uuid) if event.type == "phase"]
    assert told_of[-3:] == ["enqueued", "scheduled", "image"]


def test_steps_seen_after_it_is_up_or_put_to_sleep_change_nothing(world: World) -> None:
    """They are of a start that is over."""
    uuid = world.active()
    seen = world.runtime.observe(uuid)
    assert seen is not None
    before = world.get(uuid).phases
    world.observer.apply(replace(seen, ready=False, phases={"scheduled": world.now + 1}))
    assert world.get(uuid).phases == before


def test_no_phase_is_earlier_than_the_one_before_it() -> None:
    """Clocks differ between machines, and a pod may be older than the request that adopts it."""
    assert phases_since({"enqueued": 9}, {"scheduled": 90.0, "started": 100.5}, 100.0) == {
        "enqueued": 9,
        "scheduled": 9,
        "started": 500,
    }


def test_each_start_is_counted_by_kind_and_phase(world: World) -> None:
    """For the metrics; one that came up by itself after a failure was none."""
    uuid = world.asleep()
    world.sessions.wake(uuid)
    world.work()
    world.now += 0.4
    world.runtime.become_ready(uuid)
    world.look(uuid)
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
    seen = world.runtime.observe(uuid)
    assert seen is not None
    world.observer.apply(replace(seen, trouble="The agent ended unexpectedly (status 1)."))
    told = world.get(uuid)
    assert (told.status, told.reason) == (Status.ACTIVE, "The agent ended unexpectedly (status 1).")
    world.observer.apply(seen)
    assert (world.get(uuid).status, world.get(uuid).reason) == (Status.ACTIVE, "")


NO_ROOM = "No machine of the cluster has room for the workspace: 0/1 nodes are available: 1 Insufficient cpu."


def waiting(world: World, text: str = NO_ROOM, code: str = "no_capacity") -> str:
    """A session whose start waits, and is seen to."""
    uuid = world.asleep()
    world.sessions.wake(uuid)
    world.work()
    wait_on(world, uuid, text, code)
    return uuid


def wait_on(world: World, uuid: str, text: str, code: str = "no_capacity") -> None:
    workspace = world.runtime.workspaces[uuid]
    workspace.waiting, workspace.code = text, code if text else ""
    world.look(uuid)


def states(world: World, uuid: str) -> list[dict[str, Any]]:
    return [dict(event.data) for event in world.events_of(uuid) if event.type == "state"]


def test_what_a_start_waits_for_is_its_reason_until_it_goes_on(world: World) -> None:
    """It fails nothing; whoever listens is told of both."""
    uuid = waiting(world)
    told = world.get(uuid)
    assert (told.status, told.reason, told.reason_code) == (Status.WAKING, NO_ROOM, "no_capacity")
    wait_on(world, uuid, "")
    told = world.get(uuid)
    assert (told.status, told.reason, told.reason_code) == (Status.WAKING, "", "")
    assert states(world, uuid)[-2:] == [
        {"status": "waking", "reason": NO_ROOM, "reason_code": "no_capacity"},
        {"status": "waking", "reason": None, "reason_code": None},
    ]


def test_the_same_reason_in_other_words_is_no_news(world: World) -> None:
    """The scheduler counts the nodes anew with every one that comes or goes."""
    uuid = waiting(world)
    before = states(world, uuid)
    wait_on(world, uuid, NO_ROOM.replace("1", "2"))
    assert world.get(uuid).reason == NO_ROOM.replace("1", "2")
    assert states(world, uuid) == before


def test_a_session_that_waits_becomes_active_without_the_reason(world: World) -> None:
    uuid = waiting(world)
    workspace = world.runtime.workspaces[uuid]
    workspace.waiting = workspace.code = ""
    world.runtime.become_ready(uuid)
    world.look(uuid)
    told = world.get(uuid)
    assert (told.status, told.reason, told.reason_code) == (Status.ACTIVE, "", "")


def test_a_session_that_waits_can_be_put_to_sleep(world: World) -> None:
    """What is seen of its start after that is no reason of anything any more."""
    uuid = waiting(world)
    world.sessions.sleep(uuid)
    world.look(uuid)
    told = world.get(uuid)
    assert (told.status, told.reason, told.reason_code) == (Status.SLEEPING, "", "")


def failed_for(world: World, uuid: str) -> Observation:
    """The watch tells that the start waited for too long."""
    seen = world.runtime.observe(uuid)
    assert seen is not None
    return replace(seen, running=False, failure=NO_ROOM, waiting=NO_ROOM, code="no_capacity")


def test_a_start_that_waited_for_too_long_has_failed_and_says_the_same(world: World) -> None:
    """And comes back by itself, as any that answers after all."""
    uuid = waiting(world)
    world.observer.apply(failed_for(world, uuid))
    told = world.get(uuid)
    assert (told.status, told.reason, told.reason_code) == (Status.FAILED, NO_ROOM, "no_capacity")
    workspace = world.runtime.workspaces[uuid]
    workspace.waiting = workspace.code = ""
    world.runtime.become_ready(uuid)
    world.look(uuid)
    told = world.get(uuid)
    assert (told.status, told.reason, told.reason_code) == (Status.ACTIVE, "", "")


@pytest.mark.parametrize("now", ["answers", "runs", "waits for something else", "can't be seen"])
def test_a_start_fails_for_its_waiting_only_where_another_look_shows_it(world: World, now: str) -> None:
    """What feeds the watch may have been silent: the sweep judges a start whose editor runs."""
    uuid = waiting(world)
    told = failed_for(world, uuid)
    workspace = world.runtime.workspaces[uuid]
    if now == "waits for something else":
        workspace.waiting, workspace.code = "The workspace's volume is not available.", ""
    else:
        workspace.waiting = workspace.code = ""
        workspace.ready = now == "answers"
    if now == "can't be seen":
        world.runtime.observe = away  # type: ignore[method-assign]
        with pytest.raises(RetryableError):
            world.observer.apply(told)
    else:
        world.observer.apply(told)
    assert world.get(uuid).status is Status.WAKING


def away(uuid: str) -> NoReturn:
    raise RetryableError("The API server can't be reached.")


def test_an_active_session_whose_successor_finds_no_room_is_waking(world: World) -> None:
    """Its machine was drained: it is not there for its user, and says why."""
    uuid = world.active()
    workspace = world.runtime.workspaces[uuid]
    workspace.ready = False
    wait_on(world, uuid, NO_ROOM)
    assert world.get(uuid).status is Status.WAKING
    world.work()
    world.look(uuid)
    told = world.get(uuid)
    assert (told.status, told.reason_code) == (Status.WAKING, "no_capacity")


def test_a_session_that_becomes_active_at_that_moment_is_not_said_to_wait(world: World) -> None:
    """The observer's look at the record is a moment old."""
    uuid = waiting(world, "")
    old = world.get(uuid)
    world.runtime.become_ready(uuid)
    world.look(uuid)
    get = world.core.store.get
    world.core.store.get = lambda uuid: old  # type: ignore[method-assign]
    world.runtime.workspaces[uuid].ready = False
    wait_on(world, uuid, NO_ROOM)
    world.core.store.get = get  # type: ignore[method-assign]
    assert (world.get(uuid).status, world.get(uuid).reason) == (Status.ACTIVE, "")
