"""Delivery: in order, exactly once in effect, whatever dies in between; and an agent's end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.core.agents.agent import Agent
from app.core.errors import StateUnavailable
from app.core.prompts.history_store import Checkpoint
from app.core.prompts.inbox import LONGEST_RETRY, State
from app.core.redis import keys, task_queue
from app.core.sessions.model import Status
from tests.fake_agent import NO_RESPONSES, FakeAgent, fake_agent
from tests.ports import free_port
from tests.world import World
from workers.runtime.base import Observation


@pytest.fixture
def uuid(world: World, agent: FakeAgent) -> str:
    """That of a session that is active, and whose agent has called."""
    made = world.active()
    hello(world, made, agent)
    return made


def hello(world: World, uuid: str, agent: FakeAgent, boot: str = "boot-1") -> None:
    assert world.core.inbox.agent_here(uuid, agent.address, "pod", boot, world.now)


def send(world: World, uuid: str, *texts: str) -> list[str]:
    """Prompts; answers their ids."""
    return [world.sessions.prompt(uuid, text).prompt.id for text in texts]


def states(world: World, uuid: str, ids: list[str]) -> list[State]:
    return [world.core.inbox.get(uuid, each).state for each in ids]


def waits(world: World, uuid: str, tries: int) -> list[float]:
    """How long (s) each of these deliveries, which fail, is waited for the next one."""
    world.tasks.lose_all()
    found = []
    for _ in range(tries):
        world.core.delivery.deliver(uuid)
        due = world.core.redis.zscore(keys.INBOX_PENDING, uuid)
        assert due is not None
        found.append(due - world.now)
        world.core.delivery.deliver(uuid)
        world.now = due
    return found


def test_prompts_reach_the_agent_in_order_with_its_secret(world: World, uuid: str, agent: FakeAgent) -> None:
    ids = send(world, uuid, "one", "two", "three")
    world.work()
    assert agent.accepted == ids
    assert list(agent.texts.values()) == ["one", "two", "three"]
    assert set(agent.tokens) == {f"Bearer {world.core.credentials.agent_secrets(uuid, 1)[0]}"}
    assert states(world, uuid, ids) == [State.DELIVERED] * 3
    assert [message.id for message in world.core.inbox.unfinished(uuid)] == ids
    assert (world.get(uuid).waiting, world.get(uuid).unfinished) == (0, 3)
    assert world.core.inbox.get(uuid, ids[0]).delivered_at == world.now


def test_a_prompt_to_a_sleeping_session_is_delivered_when_its_agent_calls(world: World, agent: FakeAgent) -> None:
    """Before the observer has seen the workspace ready."""
    uuid = world.asleep()
    ids = send(world, uuid, "good morning")
    world.work()
    assert agent.accepted == []
    hello(world, uuid, agent)
    world.core.delivery.deliver(uuid)
    assert agent.accepted == ids
    assert world.get(uuid).status is Status.WAKING


def test_without_a_call_the_observers_look_starts_the_delivery(world: World, agent: FakeAgent) -> None:
    """The runtime knows where the agent of a workspace that is ready listens."""
    uuid = world.asleep()
    ids = send(world, uuid, "good morning")
    world.work()
    world.runtime.workspaces[uuid].agent = agent.address
    world.runtime.become_ready(uuid)
    world.look(uuid)
    assert task_queue.DELIVER in world.work()
    assert agent.accepted == ids


def test_what_the_runtime_says_never_replaces_what_the_agent_said(world: World, uuid: str, agent: FakeAgent) -> None:
    world.runtime.workspaces[uuid].agent = f"http://127.0.0.1:{free_port()}"
    world.look(uuid)
    known = world.core.inbox.agent(uuid)
    assert known is not None
    assert known.address == agent.address


def test_an_agent_that_is_silent_keeps_its_prompts_waiting_and_the_sweep_tries_again(
    world: World, uuid: str, agent: FakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.statuses = [500]
    ids = send(world, uuid, "canary one", "canary two")
    with caplog.at_level(logging.DEBUG):
        world.work()
    assert "canary" not in str([(record.getMessage(), vars(record)) for record in caplog.records])
    assert agent.accepted == []
    assert world.get(uuid).waiting == 2
    world.sweeps.stale()
    assert task_queue.DELIVER not in world.work(), "not before it is due"
    world.now += LONGEST_RETRY
    world.sweeps.stale()
    assert task_queue.DELIVER in world.work()
    assert agent.accepted == ids


def test_an_agent_that_stays_silent_is_tried_less_and_less_often(world: World) -> None:
    """A workspace whose agent is broken for good must not keep the delivery workers busy."""
    uuid = world.active()
    world.core.inbox.agent_here(uuid, f"http://127.0.0.1:{free_port()}", "pod", "boot", world.now)
    send(world, uuid, "one")
    assert waits(world, uuid, 10) == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 300])


@pytest.mark.parametrize("response", NO_RESPONSES)
def test_an_agent_that_answers_by_no_http_is_tried_less_often(
    world: World, uuid: str, agent: FakeAgent, response: bytes
) -> None:
    agent.raw_response = response
    ids = send(world, uuid, "one")
    assert waits(world, uuid, 3) == pytest.approx([1, 2, 4])
    assert states(world, uuid, ids) == [State.QUEUED]


def test_a_refused_connection_is_tried_again_at_once(world: World, agent: FakeAgent) -> None:
    """It may have called before the cluster's network lets anybody in."""
    uuid = world.active()
    port = free_port()
    world.core.inbox.agent_here(uuid, f"http://127.0.0.1:{port}", "pod", "boot", world.now)
    ids = send(world, uuid, "one")
    pauses: list[float] = []
    with fake_agent() as late:

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                hello(world, uuid, late, boot="boot-2")

        world.core.delivery._pause = pause
        world.work()
        assert late.accepted == ids, "the call that came meanwhile had found the lease taken"
    assert pauses == [0.1, 0.2, 0.4, 0.8]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_prompt_the_agent_will_never_take_fails_and_the_next_one_goes_on(
    world: World, uuid: str, agent: FakeAgent, status: int
) -> None:
    agent.statuses = [status]
    ids = send(world, uuid, "bad", "good")
    world.work()
    assert agent.accepted == ids[1:]
    assert states(world, uuid, ids) == [State.FAILED, State.DELIVERED]
    assert str(status) in world.core.inbox.get(uuid, ids[0]).reason


def test_a_prompt_sent_again_before_its_rollback_is_noted_is_dropped(world: World, uuid: str, agent: FakeAgent) -> None:
    """It had expired, so it was taken as a new one. The rollback spares prompts that came after it was asked for."""
    (new,) = send(world, uuid, "new")
    world.sessions.prompt(uuid, "do it", "old")
    world.core.inbox.roll_back(uuid, world.now - 60, world.now - 5, world.now, ["old"])
    world.work()
    assert agent.accepted == [new]
    assert states(world, uuid, [new, "old"]) == [State.DELIVERED, State.FAILED]


@pytest.mark.parametrize("status", [301, 401, 403, 404, 409, 429, 500, 503])
def test_any_other_refusal_leaves_the_prompt_waiting(world: World, uuid: str, agent: FakeAgent, status: int) -> None:
    """It is not the prompt's fault: another workspace may have got that address, or the agent is ending."""
    agent.statuses = [status] * 5
    ids = send(world, uuid, "one")
    world.work()
    assert states(world, uuid, ids) == [State.QUEUED]


@pytest.mark.slow
def test_only_one_delivers_at_a_time(world: World, uuid: str, agent: FakeAgent) -> None:
    ids = send(world, uuid, *(f"number {n}" for n in range(40)))
    with ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(world.core.delivery.deliver, uuid) for _ in range(8)]:
            result.result()
    world.work()
    assert agent.accepted == ids
    assert agent.repeated == []


def test_a_prompt_that_came_after_the_last_look_is_not_left_behind(world: World, uuid: str, agent: FakeAgent) -> None:
    """Its own task found the lease taken by a delivery that had already seen the inbox empty."""
    head = world.core.inbox.head
    late: list[str] = []

    def look(of: str) -> Any:
        found = head(of)
        if found is None and not late:
            late.extend(send(world, uuid, "late"))
            world.core.delivery.deliver(uuid)
            world.tasks.lose_all()
        return found

    world.core.inbox.head = look  # type: ignore[method-assign, assignment]
    ids = send(world, uuid, "first")
    world.work()
    assert agent.accepted == [*ids, *late]


def test_nothing_is_delivered_to_a_session_that_sleeps(world: World, uuid: str, agent: FakeAgent) -> None:
    """Its agent is being stopped."""
    ids = send(world, uuid, "one")
    world.tasks.lose_all()
    world.sessions.sleep(uuid)
    world.tasks.lose_all()
    world.core.delivery.deliver(uuid)
    world.core.delivery.deliver("zzzzzzzz")
    assert agent.accepted == []
    assert states(world, uuid, ids) == [State.QUEUED]


def test_an_agent_that_had_the_prompt_tells_how_it_ended(world: World, uuid: str, agent: FakeAgent) -> None:
    """Its own report may have been lost with Redis. It may tell half a character; UTF-8, and so Redis, has none."""
    agent.take("a", "one")
    agent.take("b", "two")
    agent.answers["a"] = {"status": "processed", "response": {"text": "done"}}
    agent.answers["b"] = {"status": "failed", "reason": "\ud800 broken", "response": {"text": "half an\udc00"}}
    world.sessions.prompt(uuid, "one", "a")
    world.sessions.prompt(uuid, "two", "b")
    world.work()
    first, second = world.core.inbox.get(uuid, "a"), world.core.inbox.get(uuid, "b")
    assert (first.state, first.response) == (State.PROCESSED, {"text": "done"})
    assert (second.state, second.reason) == (State.FAILED, "? broken")
    assert second.response == {"text": "half an?"}


class Killed(BaseException):
    """What a SIGKILL looks like from inside: nothing behind it runs."""


def dying(world: World, method: str, *, after: bool = False, of: type[BaseException] = Killed) -> None:
    """Die in the next call of this method of the inbox, before or after it has done its work."""
    works = getattr(world.core.inbox, method)

    def die(*args: Any, **kwargs: Any) -> None:
        setattr(world.core.inbox, method, works)
        if after:
            works(*args, **kwargs)
        raise of

    setattr(world.core.inbox, method, die)


CRASHES: list[Callable[[World, FakeAgent], None]] = [
    # Before the prompt is read, before it is sent, and when the agent has it, or has it not, and could not say so.
    lambda world, agent: dying(world, "head"),
    lambda world, agent: dying(world, "agent", after=True),
    lambda world, agent: setattr(agent, "die_after_taking", 1),
    lambda world, agent: setattr(agent, "statuses", [500]),
    # Before and after it is noted that the agent has it, and while Redis is away.
    lambda world, agent: dying(world, "delivered"),
    lambda world, agent: dying(world, "delivered", after=True),
    lambda world, agent: dying(world, "delivered", of=StateUnavailable),
    # Its message lost by the broker.
    lambda world, agent: world.tasks.lose_all(),
]


def survive(world: World, uuid: str) -> None:
    """Do the tasks that wait. One that dies leaves its lease behind, which ends by itself."""
    try:
        world.work()
    except (Killed, StateUnavailable):
        world.core.redis.delete(keys.DELIVERY_LEASE.format(uuid=uuid))


def sweep_later(world: World, uuid: str) -> None:
    world.now += LONGEST_RETRY
    world.sweeps.stale()
    survive(world, uuid)


@pytest.mark.slow
def test_200_prompts_with_a_crash_at_every_point_are_delivered_once_and_in_order(
    world: World, uuid: str, agent: FakeAgent
) -> None:
    """Whatever dies, the lease ends, the message or the sweep comes again, and the agent drops what it has seen."""
    ids: list[str] = []
    for number in range(200):
        ids += send(world, uuid, f"number {number}")
        CRASHES[number % len(CRASHES)](world, agent)
        survive(world, uuid)
        if number % 3 == 0:
            sweep_later(world, uuid)
    while world.get(uuid).waiting:
        sweep_later(world, uuid)
    assert agent.accepted == ids
    assert agent.repeated, "the crashes did make it deliver some twice"
    assert world.get(uuid).waiting == 0
    assert states(world, uuid, ids) == [State.DELIVERED] * 200


# Taking leave


def test_a_sleep_ends_the_turn_and_stores_the_conversation_first(world: World, uuid: str, agent: FakeAgent) -> None:
    stopped_after: list[int] = []
    stop = world.runtime.stop
    world.runtime.stop = lambda *args: (stopped_after.append(len(agent.requests)), stop(*args))[1]  # type: ignore[method-assign,func-returns-value]
    world.sessions.sleep(uuid)
    world.work()
    cancel = ("POST", "/cancel", {"reason": "sleep", "generation": world.get(uuid).generation})
    assert [(method, path) for method, path, _ in agent.requests][2:] == [("POST", "/checkpoint")]
    assert agent.requests[:2] == [("POST", "/unsaved-work", {}), cancel]
    assert stopped_after == [3]


def test_a_deletion_takes_leave_too_and_the_retention_counts_from_it(world: World, uuid: str, agent: FakeAgent) -> None:
    world.core.history_store.write(uuid, Checkpoint([{"id": "m1", "role": "user", "content": "hi"}]))
    world.sessions.delete(uuid)
    world.work()
    assert ("POST", "/cancel", {"reason": "delete", "generation": 2}) in agent.requests
    assert world.get(uuid).status is Status.TERMINATED
    written = world.core.history_store.last_written(uuid)
    assert written is not None
    world.core.redis.delete(keys.SESSION.format(uuid=uuid))
    world.now = written
    world.pass_time(world.settings.history_retention - 60)
    world.sweeps.retention()
    assert world.core.history_store.read(uuid) is not None
    world.pass_time(120)
    world.sweeps.retention()
    assert world.core.history_store.read(uuid) is None


def test_the_conversation_of_a_session_that_lives_or_whose_record_is_lost_is_kept_however_old(world: World) -> None:
    uuid = world.asleep()
    world.core.history_store.write(uuid, Checkpoint([{"id": "m"}]))
    for _ in range(2):
        world.pass_time(10 * world.settings.history_retention)
        world.sweeps.retention()
        assert world.core.history_store.read(uuid) is not None
        world.core.redis.flushall()


def test_a_session_deleted_under_the_sweeps_eyes_doesn_t_stop_it(world: World) -> None:
    """Its prompts were still waiting when the sweep looked."""
    uuids = [world.active(), world.active("bob")]
    for uuid in uuids:
        send(world, uuid, "one")
        world.core.store.change(uuid, world.now, to=Status.SLEEPING, settle=True)
    world.tasks.lose_all()
    wake = world.core.sessions.wake

    def deleted_first(uuid: str, request_id: str = "", *, asked: bool = False) -> Any:
        if uuid == uuids[0]:
            world.sessions.delete(uuid)
        return wake(uuid, request_id, asked=asked)

    world.core.sessions.wake = deleted_first  # type: ignore[method-assign]
    stale_sweep(world)
    assert [world.get(uuid).status for uuid in uuids] == [Status.TERMINATING, Status.WAKING]


def test_a_broken_agent_holds_no_sleep_up(world: World, uuid: str, agent: FakeAgent) -> None:
    agent.raw_answer = b"no JSON"
    world.sessions.sleep(uuid)
    world.work()
    asleep = world.get(uuid)
    assert (asleep.status, asleep.settled, asleep.replicas) == (Status.SLEEPING, asleep.generation, 0)
    assert world.core.history_store.read(uuid) is None


def test_an_observation_with_an_address_no_agent_can_have_is_left_aside(world: World) -> None:
    uuid = world.active()
    seen = world.runtime.observe(uuid)
    assert seen is not None
    world.observer.apply(Observation(**{**vars(seen), "agent": "http://10.0.0.1:1111"}))
    assert world.core.inbox.agent(uuid) is None
    assert world.get(uuid).status is Status.ACTIVE


def test_a_prompt_that_the_agent_lost_is_given_to_the_next_one_and_nothing_twice_to_the_same(
    world: World, uuid: str, agent: FakeAgent
) -> None:
    """Its volume was lost, or is that of an older backup: the next agent does not know what the last one had."""
    for name in ("m1", "m2"):
        world.sessions.prompt(uuid, name, name)
    world.work()
    assert states(world, uuid, ["m1", "m2"]) == [State.DELIVERED] * 2
    hello(world, uuid, agent)
    assert world.get(uuid).waiting == 0
    world.core.inbox.finish(uuid, "m1", response={"text": "done"}, now=world.now)
    world.sessions.prompt(uuid, "m3", "m3")
    world.tasks.lose_all()
    agent.requests.clear()
    hello(world, uuid, agent, "another boot")
    assert world.get(uuid).waiting == 2
    world.core.delivery.deliver(uuid)
    given = [body["id"] for _, path, body in agent.requests if path == "/chat"]
    assert given == ["m2", "m3"], "in their order, and not what has ended"


def test_a_prompt_right_after_a_sleep_calls_the_agent_back(world: World, uuid: str, agent: FakeAgent) -> None:
    """The sleep had told it to take nothing more when the prompt came; the processes never stopped."""
    world.sessions.sleep(uuid)
    held_back = world.core.agents.cancel

    def and_then_a_prompt(*args: Any, **more: Any) -> None:
        held_back(*args, **more)
        world.sessions.prompt(uuid, "hello", "m1")

    world.core.agents.cancel = and_then_a_prompt  # type: ignore[method-assign]
    world.work()
    world.look(uuid)
    world.work()
    asked = [path for _, path, _ in agent.requests]
    assert asked[-2:] == ["/resume", "/chat"]
    assert "stop" not in [name for name, _, _ in world.runtime.calls]
    assert world.core.inbox.get(uuid, "m1").state is State.DELIVERED
    assert world.get(uuid).status is Status.ACTIVE


@pytest.fixture
def leaving(world: World, uuid: str) -> str:
    """Its sleep was broken off when its agent had been told to leave; it is to be awake again."""
    world.sessions.sleep(uuid)
    world.core.inbox.hold(uuid, world.get(uuid).generation, world.now)
    world.sessions.wake(uuid)
    return uuid


def stale_sweep(world: World) -> None:
    """The next one that looks at what was left."""
    world.now += world.settings.stale_after + 1
    world.sweeps.stale()


def called_back(agent: FakeAgent) -> list[int]:
    """The generations of which the agent was told that it stays."""
    return [body["generation"] for _, path, body in agent.requests if path == "/resume"]


def test_an_agent_not_called_back_fails_no_start_and_is_asked_again(
    world: World, leaving: str, agent: FakeAgent
) -> None:
    agent.statuses = [500]
    world.work()
    world.look(leaving)
    assert world.get(leaving).status is Status.ACTIVE
    assert world.core.inbox.agent(leaving) is None
    stale_sweep(world)
    world.work()
    assert called_back(agent) == [3, 3]
    assert world.core.inbox.agent(leaving) is not None


def test_an_agent_that_refuses_the_call_back_is_given_prompts(world: World, leaving: str, agent: FakeAgent) -> None:
    agent.statuses = [400]
    world.sessions.prompt(leaving, "hello", "m1")
    world.work()
    assert world.core.inbox.get(leaving, "m1").state is State.DELIVERED


@pytest.mark.parametrize("prompts", [0, 2])
def test_an_agent_is_called_back_after_a_broken_start(
    world: World, leaving: str, agent: FakeAgent, prompts: int
) -> None:
    """Right after the processes were found to run: the start is made again."""
    ids = send(world, leaving, *["hello"] * prompts)
    start = world.runtime.start

    def and_then_redis_is_away(*args: Any) -> bool:
        start(*args)
        raise StateUnavailable

    world.runtime.start = and_then_redis_is_away  # type: ignore[method-assign, assignment]
    with pytest.raises(StateUnavailable):
        world.lifecycle.carry_out(leaving, world.get(leaving).generation)
    world.runtime.start = start  # type: ignore[method-assign]
    world.tasks.lose_all()
    world.look(leaving)
    stale_sweep(world)
    world.work()
    assert world.get(leaving).status is Status.ACTIVE
    assert called_back(agent) == [3]
    assert states(world, leaving, ids) == [State.DELIVERED] * prompts
    world.now += 10 * world.settings.stale_after
    world.sweeps.stale()
    assert world.tasks.sent == []


def test_an_agent_that_ends_a_turn_meanwhile_is_called_back_too(world: World, uuid: str, agent: FakeAgent) -> None:
    """Then no prompt waits any more, and the start's own delivery is lost."""
    world.sessions.prompt(uuid, "hello", "m1")
    world.work()
    world.sessions.sleep(uuid)
    world.core.inbox.hold(uuid, world.get(uuid).generation, world.now)
    world.sessions.wake(uuid)
    world.lifecycle.carry_out(uuid, world.get(uuid).generation)
    world.core.inbox.finish(uuid, "m1", response={"text": "hi"}, now=world.now)
    world.tasks.lose_all()
    world.look(uuid)
    stale_sweep(world)
    world.work()
    assert called_back(agent) == [3]


def test_a_session_put_to_sleep_is_not_woken_by_an_agent_that_was_owed_a_call_back(world: World, leaving: str) -> None:
    world.sessions.prompt(leaving, "hello", "m1")
    world.core.inbox.release(leaving, world.now)
    world.sessions.sleep(leaving)
    world.work()
    world.look(leaving)
    stale_sweep(world)
    assert world.get(leaving).status is Status.SLEEPING
    assert world.get(leaving).generation == world.get(leaving).settled


def test_an_agent_that_is_to_leave_again_is_not_one_that_stays(world: World, leaving: str, agent: FakeAgent) -> None:
    """The next sleep came while it was called back."""
    resume = world.core.agents.resume

    def and_then_a_sleep(agent: Agent, generation: int) -> None:
        resume(agent, generation)
        world.sessions.sleep(leaving)
        assert world.core.inbox.hold(leaving, world.get(leaving).generation, world.now)

    world.core.agents.resume = and_then_a_sleep  # type: ignore[method-assign]
    world.look(leaving)
    world.lifecycle.carry_out(leaving, world.get(leaving).generation)
    world.core.delivery.deliver(leaving)
    assert called_back(agent) == [3]
    assert world.core.inbox.leaving_agent(leaving) is not None


@pytest.mark.parametrize("known", ["boot-1", ""])
def test_an_agent_whose_call_comes_late_is_called_back_all_the_same(world: World, agent: FakeAgent, known: str) -> None:
    """It was told to leave before; of one that the observer saw first its boot isn't known."""
    uuid = world.active()
    hello(world, uuid, agent, known)
    world.sessions.sleep(uuid)
    assert world.core.inbox.hold(uuid, world.get(uuid).generation, world.now)
    world.sessions.prompt(uuid, "hello", "m1")
    hello(world, uuid, agent, "boot-1")
    world.work()
    assert called_back(agent) == [3]
    assert world.core.inbox.get(uuid, "m1").state is State.DELIVERED


def test_an_agent_is_left_alone_until_its_workspace_is_to_run_and_another_is_not_called_back(
    world: World, leaving: str, agent: FakeAgent
) -> None:
    """A worker may be at the stop still."""
    world.core.delivery.deliver(leaving)
    assert called_back(agent) == []
    hello(world, leaving, agent, "boot-2")
    world.work()
    assert called_back(agent) == []


def test_a_stopping_agent_is_not_called_back_by_what_was_seen_of_it(world: World, uuid: str, agent: FakeAgent) -> None:
    """The observer tells its address only where none is known."""
    world.core.inbox.agent_leaves(uuid)
    world.core.inbox.agent_here(uuid, agent.address, "pod", "", world.now)
    assert world.core.inbox.agent(uuid) is None
    assert world.core.inbox.leaving_agent(uuid) is not None
