"""What a session's agent is asked before its workspace is stopped, and where the answer is told."""

from __future__ import annotations

import pytest

from app.core.agents.agent import Agent
from app.core.errors import Superseded
from app.core.prompts.agent_client import AgentClient
from app.core.redis import task_queue
from app.core.sessions.model import Status
from app.core.sessions.unsaved_work import NAME_LENGTH, NAMES, read_unsaved_work
from tests.fake_agent import NO_RESPONSES, FakeAgent
from tests.world import World
from workers.agents.shutdown import shut_down
from workers.lifecycle.intents import Lifecycle

RISK = {"uncommitted": {"count": 2, "names": ["a.py", "b.py"]}, "complete": True}


def address(world: World, uuid: str) -> Agent:
    at = world.core.inbox.agent(uuid)
    assert at is not None
    return at


def test_a_sleep_tells_what_it_puts_at_risk_before_it_stops_anything(world: World, agent: FakeAgent) -> None:
    """In the events and in the record, and it asks for that first."""
    uuid = world.active_with(agent)
    agent.unsaved_work = RISK
    world.sleep(uuid)
    assert [path for _, path, _ in agent.requests] == ["/unsaved-work", "/cancel", "/checkpoint"]
    assert world.get(uuid).unsaved_work == RISK
    assert world.told(uuid, "risk") == [RISK]
    kinds = [event.data.get("phase", event.type) for event in world.events_of(uuid)]
    assert kinds.index("risk") < kinds.index("stopped")


def test_a_delete_tells_it_too(world: World, agent: FakeAgent) -> None:
    uuid = world.active_with(agent)
    agent.unsaved_work = RISK
    record = world.delete(uuid)
    assert (record.status, record.unsaved_work) == (Status.TERMINATED, RISK)
    assert world.told(uuid, "risk") == [RISK]


def test_a_delete_of_a_sleeping_session_tells_what_its_sleep_left_behind(world: World, agent: FakeAgent) -> None:
    uuid = world.active_with(agent)
    agent.unsaved_work = RISK
    world.sleep(uuid)
    assert world.delete(uuid).unsaved_work == RISK


def test_nothing_at_risk_takes_back_what_was_before(world: World, agent: FakeAgent) -> None:
    uuid = world.active_with(agent)
    world.core.store.change(uuid, world.now, unsaved_work=RISK)
    assert world.sleep(uuid).unsaved_work == {}
    assert world.told(uuid, "risk") == []


@pytest.mark.slow
def test_an_agent_that_hangs_holds_a_sleep_up_no_longer_than_its_deadlines(world: World, agent: FakeAgent) -> None:
    """It is put to sleep, with nothing known of its work."""
    uuid = world.active_with(agent)
    world.core.agents = AgentClient(world.core.credentials, 0.2, world.core.budget)
    world.lifecycle = Lifecycle(world.core, world.runtime, world.clock)
    agent.hang = True
    world.sessions.sleep(uuid)
    assert world.work() == [task_queue.SLEEP]
    assert not world.runtime.workspaces[uuid].running
    assert world.get(uuid).unsaved_work == {}


@pytest.mark.parametrize("last", ["/unsaved-work", "/cancel"])
def test_a_leave_ends_as_soon_as_the_stop_is_not_wanted_any_more(world: World, agent: FakeAgent, last: str) -> None:
    """Between any two of its steps; the exception goes through, so that what was begun is undone."""
    uuid = world.active_with(agent)

    def check() -> None:
        if agent.requests[-1][1] == last:
            raise Superseded("A newer intent came.")

    with pytest.raises(Superseded):
        shut_down(world.core, address(world, uuid), "sleep", 5, check)
    assert agent.requests[-1][1] == last
    assert world.core.history_store.read(uuid) is None


def test_a_stop_says_which_it_is(world: World, agent: FakeAgent) -> None:
    uuid = world.active_with(agent)
    shut_down(world.core, address(world, uuid), "sleep", 5)
    assert ("POST", "/cancel", {"reason": "sleep", "generation": 5}) in agent.requests


def test_an_agent_stores_its_conversation_itself(world: World, agent: FakeAgent) -> None:
    """In the time the worker waits for it."""
    uuid = world.active_with(agent)
    agent.history = [{"id": "m1", "role": "user", "content": "hi"}]
    world.sleep(uuid)
    assert agent.requests[-1] == ("POST", "/checkpoint", {"seconds": 8.0})
    assert world.get(uuid).unarchived == {}


def test_a_conversation_an_agent_could_not_store_is_known_to_be_newer(world: World, agent: FakeAgent) -> None:
    """Than what is kept; the sleep goes on."""
    uuid = world.active_with(agent)
    agent.saved = False
    noted = world.sleep(uuid).unarchived
    assert noted["since"] > 0
    assert "its volume has it" in noted["reason"]


def test_nothing_is_known_of_an_agent_that_does_not_answer(world: World, agent: FakeAgent) -> None:
    uuid = world.active_with(agent)
    agent.raw_answer = b"no JSON"
    assert world.sleep(uuid).unarchived == {}


@pytest.mark.parametrize("response", NO_RESPONSES)
def test_an_agent_that_answers_by_no_http_is_stopped(world: World, agent: FakeAgent, response: bytes) -> None:
    uuid = world.active_with(agent)
    agent.raw_response = response
    assert (world.sleep(uuid).status, world.runtime.workspaces[uuid].running) == (Status.SLEEPING, False)


@pytest.mark.parametrize(
    ("said", "risk"),
    [
        ({"complete": True}, {}),
        ({"complete": True, "unsaved": {"count": 0, "names": []}}, {}),
        ({"complete": True, "jobs": "all", "unsaved": [], "unpushed": {"count": True, "names": []}}, {}),
        ({"jobs": {"count": 1, "names": ["a\nb", 7]}}, {"jobs": {"count": 1, "names": ["a?b"]}, "complete": False}),
        ({"complete": True, "secrets": {"count": 1, "names": []}}, {}),
    ],
)
def test_what_an_agent_says_is_at_risk_is_checked(said: dict[str, object], risk: dict[str, object]) -> None:
    assert read_unsaved_work(said) == risk


def test_what_an_agent_says_is_at_risk_is_cut() -> None:
    read = read_unsaved_work({"jobs": {"count": 10**12, "names": ["x" * 10_000] * 1_000}, "complete": True})
    assert read["jobs"] == {"count": 1_000_000, "names": ["x" * NAME_LENGTH] * NAMES}


def test_a_warning_reaches_the_agent_unless_the_session_was_used_since(world: World, agent: FakeAgent) -> None:
    uuid = world.active_with(agent, idle_timeout=600)
    world.now += 550
    world.sweeps.idle()
    assert world.work() == [task_queue.WARN]
    assert agent.requests == [("POST", "/notice", {"seconds": 50.0})]
    world.use(uuid)
    world.tasks.send(task_queue.WARN, uuid)
    world.work()
    assert len(agent.requests) == 1
