"""Workspaces that take their time to stop: nobody waits for them but those who asked for it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from app.core.errors import StillEnding
from app.core.prompts.agent_client import AgentClient
from app.core.redis import task_queue
from app.core.sessions.attempts import MAX_ATTEMPTS
from app.core.sessions.model import Status
from scripts.lib import procfile
from tests.conftest import ROOT
from tests.fake_agent import FakeAgent
from tests.world import World
from workers import tasks
from workers.agents import shutdown
from workers.celery.app import app
from workers.lifecycle.intents import ENDING_LIMIT, ENDING_PAUSE, Lifecycle

SWEEPS_OF_A_KIND = 4


def still_ending(world: World, uuid: str) -> None:
    """The next call of `stop` finds processes that don't end; the attempt is put off."""
    world.runtime.errors["stop"] = StillEnding(uuid)
    with pytest.raises(StillEnding):
        world.work()


@pytest.mark.parametrize("how", ["hang", "trickle"])
@pytest.mark.slow
def test_all_that_is_asked_of_an_agent_before_a_stop_has_one_deadline(
    world: World, agent: FakeAgent, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that takes all of it for the first answer is asked for nothing more, and stopped."""
    uuid = world.active_with(agent)
    monkeypatch.setattr(shutdown, "SHUTDOWN_TIMEOUT", 0.3)
    world.core.agents = AgentClient(world.core.credentials, 600.0, world.core.budget)
    world.lifecycle = Lifecycle(world.core, world.runtime, world.clock)
    setattr(agent, how, True)
    agent.raw_answer = b" " * 100_000
    world.sessions.sleep(uuid)
    assert world.work() == [task_queue.SLEEP]
    assert [path for _, path, _ in agent.requests] == ["/unsaved-work"]
    assert not world.runtime.workspaces[uuid].running


def test_a_sleep_whose_processes_take_their_time_is_put_off_and_counts_as_no_failure(
    world: World, agent: FakeAgent
) -> None:
    """However often; its agent is taken leave of once."""
    uuid = world.active_with(agent)
    world.sessions.sleep(uuid)
    for _ in range(2 * MAX_ATTEMPTS):
        still_ending(world, uuid)
        assert (world.get(uuid).tries, world.get(uuid).stopping) == (0, True)
        assert not world.core.leases.held(f"lease:{uuid}")
        world.now += ENDING_PAUSE
        world.sweeps.stale()
    world.work()
    asleep = world.get(uuid)
    assert (asleep.settled, asleep.stopping, asleep.status) == (asleep.generation, False, Status.SLEEPING)
    assert [path for _, path, _ in agent.requests] == ["/unsaved-work", "/cancel", "/checkpoint"]


def test_a_workspace_that_never_ends_fails_at_last(world: World) -> None:
    uuid = world.active()
    world.sessions.sleep(uuid)
    still_ending(world, uuid)
    world.now += ENDING_LIMIT
    for _ in range(MAX_ATTEMPTS):
        world.runtime.errors["stop"] = StillEnding(uuid)
        with suppress(StillEnding):
            world.sweep(world.sweeps.stale)
        world.now += 60
    assert world.get(uuid).status is Status.FAILED
    assert "are still ending" in world.get(uuid).reason


def test_a_wake_starts_nothing_beside_processes_that_are_still_ending(world: World, agent: FakeAgent) -> None:
    """Two of them would share the files. The wake waits for its turn, not in a worker."""
    uuid = world.active_with(agent)
    world.sessions.sleep(uuid)
    still_ending(world, uuid)
    world.runtime.calls.clear()
    world.sessions.wake(uuid)
    still_ending(world, uuid)
    assert world.runtime.called == ["stop"]
    world.sweep(world.sweeps.stale, ENDING_PAUSE)
    assert world.runtime.called == ["stop", "stop", "start"]
    assert not world.get(uuid).stopping
    assert world.core.inbox.leaving_agent(uuid) is None, "it ended, and can't be called back"
    assert world.up(uuid).status is Status.ACTIVE


def test_a_wake_of_what_has_stopped_asks_for_no_stop(world: World) -> None:
    uuid = world.asleep()
    world.runtime.calls.clear()
    world.sessions.wake(uuid)
    world.work()
    assert world.runtime.called == ["start"]


def test_a_delete_takes_its_leave_apart_from_the_backups(world: World, agent: FakeAgent) -> None:
    """Whoever waits for a backup does not wait for that agent, nor for those processes."""
    uuid = world.active_with(agent)
    world.sessions.delete(uuid)
    still_ending(world, uuid)
    assert world.get(uuid).task == task_queue.LEAVE
    done = world.sweep(world.sweeps.stale, ENDING_PAUSE)
    assert [task for task in done if task.startswith("sessions.")] == [task_queue.LEAVE, task_queue.TEARDOWN]
    assert world.get(uuid).status is Status.TERMINATED
    assert [path for _, path, _ in agent.requests] == ["/unsaved-work", "/cancel", "/checkpoint"]


def test_a_teardown_that_finds_an_agent_hands_on_to_its_leave(world: World, agent: FakeAgent) -> None:
    """It called between the request and its message."""
    uuid = world.active()
    world.sessions.delete(uuid)
    world.core.redis.hset(f"agent:{uuid}", mapping={"address": agent.address, "boot": "boot-1"})
    assert world.work() == [task_queue.TEARDOWN, task_queue.LEAVE, task_queue.TEARDOWN]
    assert world.get(uuid).status is Status.TERMINATED


def test_a_lost_message_between_leave_and_teardown_is_sent_again(world: World, agent: FakeAgent) -> None:
    uuid = world.active_with(agent)
    world.sessions.delete(uuid)
    world.do(*world.tasks.sent.pop(0))
    world.tasks.lose_all()
    assert [task for task in world.catch_up() if task.startswith("sessions.")] == [task_queue.TEARDOWN]
    assert world.get(uuid).status is Status.TERMINATED


def test_what_waits_for_workspaces_shares_no_queue_with_wakes_deliveries_backups_and_sweeps() -> None:
    waiting = {task_queue.SLEEP, task_queue.LEAVE, task_queue.LOST, task_queue.READ_BACKUP}
    assert {task for task, name in task_queue.ROUTES.items() if name == "lifecycle"} == waiting
    assert {task for task, name in task_queue.ROUTES.items() if name == "sweep"} <= task_queue.SWEEPS.keys()


def test_every_queue_has_a_process_and_sweeps_have_threads_that_nobody_else_takes() -> None:
    commands = procfile.commands((ROOT / "Procfile").read_text())
    served = [name for command in commands.values() for name in _option(command, "-Q").split(",") if name]
    assert sorted(served) == sorted(task_queue.QUEUES)
    sweeper = commands["sweeper"]
    assert _option(sweeper, "-P") == "threads"
    assert int(_option(sweeper, "-c")) >= tasks.CONCURRENCY_LIMIT + SWEEPS_OF_A_KIND


def _option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1] if name in command else ""


@pytest.mark.parametrize("task", [task_queue.SLEEP, task_queue.LEAVE])
def test_a_stop_beyond_the_places_is_left_to_the_next_sweep(
    task: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It holds no thread meanwhile, and a sweep needs no place."""
    monkeypatch.setattr(tasks, "_slots", tasks.BoundedSemaphore(1))
    swept: list[str] = []
    sweeps = type("Sweeps", (), {"stale": lambda self: swept.append("stale")})()
    monkeypatch.setattr(tasks, "context", lambda: type("Context", (), {"sweeps": sweeps})())
    with tasks._slot():
        app.tasks[task]("aaaa0001", 1)
        tasks.sweep_stale()
    assert "the stale sweep will retry" in caplog.text
    assert swept == ["stale"]
