"""What the watcher makes of things that only a cluster does: scaling by others, and the steps of a start."""

from __future__ import annotations

from dataclasses import replace

from app.sessions.model import Status
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
