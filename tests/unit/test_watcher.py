"""What the watcher makes of things that only a cluster does: scaling by others, and the steps of a start."""

from __future__ import annotations

from dataclasses import replace
from threading import Event, Thread

from app.sessions import queue
from app.sessions.errors import RuntimeUnavailable
from app.sessions.fleet import START_BUCKETS
from app.sessions.model import Status, phases_since
from tests.service import PATIENCE, wait_for
from tests.world import World


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


def test_a_session_whose_deployment_someone_deleted_is_brought_up_again(world: World) -> None:
    """Nobody asked for it to sleep, as somebody does who scales it down."""
    uuid = world.active()
    world.runtime.stop(uuid, world.get(uuid).generation)
    seen = world.runtime.observe(uuid)
    assert seen is not None
    world.watcher.apply(replace(seen, deleted=True))
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
    world.watcher.apply(replace(seen, deleted=True))
    assert world.tasks.sent == [(queue.WAKE, (uuid, generation))]


def test_a_deployment_that_a_deletion_takes_away_is_not_brought_up_again(world: World) -> None:
    uuid = world.active()
    seen = world.runtime.observe(uuid)
    assert seen is not None
    world.sessions.delete(uuid)
    world.watcher.apply(replace(seen, running=False, ready=False, deleted=True))
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
    world.watcher.apply(replace(seen, phases={"scheduled": requested + 0.05, "volume": requested + 0.4}))
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
        world.watcher.apply(replace(seen, ready=False, phases=told))
    assert world.get(uuid).phases == {"enqueued": 0, "scheduled": 100, "volume": 400, "image": 500}
    told_of = [event.data["phase"] for event in world.events_of(uuid) if event.type == "phase"]
    assert told_of[-3:] == ["enqueued", "scheduled", "image"]


def test_steps_seen_after_it_is_up_or_put_to_sleep_change_nothing(world: World) -> None:
    """They are of a start that is over."""
    uuid = world.active()
    seen = world.runtime.observe(uuid)
    assert seen is not None
    before = world.get(uuid).phases
    world.watcher.apply(replace(seen, ready=False, phases={"scheduled": world.now + 1}))
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
    starts = world.core.fleet.starts()
    assert set(starts) == {(kind, phase) for kind in ("create", "wake") for phase in ("enqueued", "ready")}
    woken = starts[("wake", "ready")]
    assert (sum(woken.counts), woken.counts[START_BUCKETS.index(0.5)], woken.total) == (1, 1, 0.4)
    world.lifecycle.fail(world.get(uuid), "gone for a moment")
    world.look(uuid)
    assert world.get(uuid).status is Status.ACTIVE
    assert world.core.fleet.starts() == starts


def test_a_runtime_that_does_not_answer_silences_the_watcher(world: World) -> None:
    """Nothing happens in one that hangs, either; `/health` goes by the watcher's age."""
    watcher, stop = world.watcher, Event()
    asked = []

    def hang() -> None:
        asked.append(world.core.fleet.watcher_age(world.now))
        if len(asked) == 2:
            stop.set()
        raise RuntimeUnavailable("The API server can't be reached.")

    world.runtime.ping = hang  # type: ignore[method-assign]
    watcher.run(stop)
    assert asked[:2] == [None, None]
    world.runtime.ping = lambda: None  # type: ignore[method-assign]
    stop.clear()
    thread = Thread(target=watcher.run, args=(stop,))
    thread.start()
    wait_for(lambda: world.core.fleet.watcher_age(world.now) == 0.0, "the watcher's heartbeat")
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
    world.watcher.apply(replace(seen, trouble="The agent ended unexpectedly (status 1)."))
    told = world.get(uuid)
    assert (told.status, told.reason) == (Status.ACTIVE, "The agent ended unexpectedly (status 1).")
    world.watcher.apply(seen)
    assert (world.get(uuid).status, world.get(uuid).reason) == (Status.ACTIVE, "")
