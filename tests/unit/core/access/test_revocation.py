"""Revoked access: what was opened with them is ended, whatever is lost or dies in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from app.core.access.agent_credentials import AgentCredentials
from app.core.access.revocation import HANDSHAKE, LONGEST_RETRY
from app.core.errors import Superseded
from app.core.redis import keys, task_queue
from app.core.service import NewSession
from app.core.sessions.model import Status
from tests.fake_agent import NO_RESPONSES, FakeAgent
from tests.world import SECRET_KEY, World
from workers.agents.disconnect import TRIES, end_connections, replace_workspace

ENDED = 2
"""How often connections are ended for one revocation: at once, and when all handshakes are over."""


def here(world: World, agent: FakeAgent, uuid: str) -> None:
    """The session's agent is there, and beside it the editor."""
    agent.disconnect_secret = AgentCredentials([SECRET_KEY]).disconnect_secrets(uuid)[0]
    assert world.core.inbox.agent_here(uuid, agent.address, "pod", "boot-1", world.now)


def still_owed(world: World, uuid: str) -> bool:
    return world.core.redis.zscore(keys.LOCKOUTS, uuid) is not None


def locked_out(agent: FakeAgent) -> int:
    return len(orders(agent))


def orders(agent: FakeAgent) -> list[int]:
    """The access epochs of the orders that it got."""
    return [int(body["order"].split()[0]) for _, path, body in agent.requests if path == "/disconnect"]


def sweep_until_paid(world: World, uuid: str, seconds: float) -> float:
    """Let the stale sweep and the workers do their work, second by second; how long it took until connections were
    first ended for good, but for those of handshakes that were under way."""
    for passed in range(int(seconds + HANDSHAKE)):
        world.sweeps.stale()
        world.work()
        if not still_owed(world, uuid):
            return passed - HANDSHAKE
        world.now += 1
    raise AssertionError(f"still owed after {seconds} s")


def test_revoking_has_the_agent_end_every_connection_at_once(world: World, agent: FakeAgent) -> None:
    uuid = world.active()
    here(world, agent, uuid)
    world.sessions.revoke(uuid)
    assert still_owed(world, uuid)
    assert world.work() == [task_queue.RENEW_TOKEN, task_queue.LOCK_OUT]
    assert locked_out(agent) == 1


def test_connections_whose_handshake_was_under_way_are_ended_too(world: World, agent: FakeAgent) -> None:
    """Forward auth admitted them just before the revocation."""
    uuid = world.active()
    here(world, agent, uuid)
    world.sessions.revoke(uuid)
    world.work()
    assert (locked_out(agent), still_owed(world, uuid)) == (1, True)
    end_connections(world.core, uuid, world.now + HANDSHAKE / 2)
    assert still_owed(world, uuid), "a repeated message does not shorten the wait"
    assert sweep_until_paid(world, uuid, 2) <= 1
    assert (orders(agent), world.get(uuid).status) == ([1] * 3, Status.ACTIVE)


def test_a_lost_message_is_sent_again(world: World, agent: FakeAgent) -> None:
    uuid = world.active()
    here(world, agent, uuid)
    world.sessions.revoke(uuid)
    world.tasks.lose_all()
    world.sweeps.stale()
    assert task_queue.LOCK_OUT not in world.work(), "it may still be on its way"
    assert sweep_until_paid(world, uuid, 15) == pytest.approx(world.settings.stale_after, abs=1)
    assert locked_out(agent) == ENDED
    world.now += 3_600
    world.sweeps.stale()
    assert task_queue.LOCK_OUT not in world.work()


@pytest.mark.slow
def test_a_start_that_takes_long_is_looked_at_less_and_less_often(world: World, agent: FakeAgent) -> None:
    """What is called a start may be a sleep that was broken off: who was inside still is, and it may yet come up."""
    uuid = world.asleep(idle_timeout=0)
    world.sessions.wake(uuid)
    world.sessions.revoke(uuid)
    asked = 0
    for _ in range(3_600):
        world.sweeps.stale()
        asked += world.work().count(task_queue.LOCK_OUT)
        world.now += 1
    assert still_owed(world, uuid)
    assert 10 <= asked <= 3_600 / LONGEST_RETRY + 12


def replaced(world: World, uuid: str) -> int:
    return len([entry for entry in world.core.audit.page().entries if entry.act.action == "replace"])


def stopped(world: World) -> int:
    """How often a workspace was stopped."""
    return [name for name, *_ in world.runtime.calls].count("stop")


def comes_up_again(world: World, uuid: str) -> None:
    """The replacement that was asked for is carried out, and seen."""
    assert (world.get(uuid).status, world.runtime.workspaces[uuid].running) == (Status.WAKING, True)
    assert not world.get(uuid).stopping
    world.runtime.become_ready(uuid)
    world.look(uuid)
    assert world.get(uuid).status is Status.ACTIVE


def test_a_workspace_whose_editor_does_not_confirm_is_replaced_once(world: World, agent: FakeAgent) -> None:
    """As where a program stands in the editor's place, which sees every order and all that requests show. After it
    nothing is left of before, so nothing is asked."""
    uuid = world.active()
    here(world, agent, uuid)
    agent.disconnect_secret = AgentCredentials([SECRET_KEY]).editor_secrets(uuid)[0]
    world.sessions.revoke(uuid)
    stops = stopped(world)
    assert task_queue.REPLACE in world.work()
    assert (locked_out(agent), stopped(world), still_owed(world, uuid)) == (TRIES, stops + 1, True)
    assert world.core.inbox.agent(uuid) is None, "no prompt goes to what was replaced"
    comes_up_again(world, uuid)
    sweep_until_paid(world, uuid, LONGEST_RETRY)
    assert (locked_out(agent), replaced(world, uuid)) == (TRIES, 1)


def test_an_agent_whose_new_secret_is_on_its_way_is_asked_again(world: World, agent: FakeAgent) -> None:
    """A revocation changes it; whoever revokes twice changes it twice."""
    uuid = world.active()
    here(world, agent, uuid)
    agent.statuses = [401] * 9
    world.sessions.revoke(uuid)
    assert task_queue.REPLACE not in world.work()
    assert sweep_until_paid(world, uuid, 2) <= 1


def test_a_workspace_that_hangs_is_replaced_after_seconds(
    world: World, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery worker waits no longer for it, however often it would ask."""
    monkeypatch.setattr("workers.agents.disconnect.PATIENCE", 0.6)
    uuid = world.active()
    here(world, agent, uuid)
    agent.hang = True
    world.sessions.revoke(uuid)
    assert task_queue.REPLACE in world.work()
    assert locked_out(agent) <= 2


@pytest.mark.parametrize("lies", [False, True])
def test_a_workspace_whose_agent_is_gone_or_lies_is_replaced(world: World, agent: FakeAgent, lies: bool) -> None:
    uuid = world.active()
    if lies:
        here(world, agent, uuid)
        agent.raw_answer = b'{"confirmation": "' + b"0" * 64 + b'"}'
    world.sessions.revoke(uuid)
    world.work()
    comes_up_again(world, uuid)
    sweep_until_paid(world, uuid, LONGEST_RETRY)
    assert replaced(world, uuid) == 1


@pytest.mark.parametrize("response", NO_RESPONSES)
def test_a_workspace_that_answers_a_disconnect_by_no_http_is_replaced(
    world: World, agent: FakeAgent, response: bytes
) -> None:
    uuid = world.active()
    here(world, agent, uuid)
    agent.raw_response = response
    world.sessions.revoke(uuid)
    assert task_queue.REPLACE in world.work()
    comes_up_again(world, uuid)


def test_a_replacement_that_was_lost_is_asked_for_again(world: World) -> None:
    uuid = world.active()
    world.sessions.revoke(uuid)
    end_connections(world.core, uuid, world.now, pause=lambda seconds: None)
    world.tasks.lose_all()
    for _ in range(20):
        world.sweeps.stale()
        world.work()
        world.now += 1
    comes_up_again(world, uuid)


def test_only_a_workspace_with_a_disconnect_that_is_due_is_replaced(world: World, agent: FakeAgent) -> None:
    """A delivery worker that was taken over asks for more."""
    uuid, other = world.active(), world.active()
    world.sessions.revoke(uuid)
    world.tasks.lose_all()
    for asked, epoch in ((other, 0), (uuid, 0), (uuid, 2), ("00000000", 1)):
        replace_workspace(world.core, asked, epoch)
    assert (world.get(uuid).status, world.get(other).status, world.tasks.sent) == (Status.ACTIVE, Status.ACTIVE, [])
    replace_workspace(world.core, uuid, 1)
    assert world.get(uuid).status is Status.WAKING
    generation = world.get(uuid).generation
    replace_workspace(world.core, uuid, 1)
    assert world.get(uuid).generation == generation


def test_a_revocation_with_a_restart_asks_nobody(world: World, agent: FakeAgent) -> None:
    """What a stranger left running would go on; the prompts of the workspace wait for the next agent."""
    uuid = world.active()
    here(world, agent, uuid)
    stops = stopped(world)
    assert world.sessions.revoke(uuid, restart=True).status is Status.WAKING
    world.work()
    assert (locked_out(agent), stopped(world)) == (0, stops + 1)
    comes_up_again(world, uuid)
    sweep_until_paid(world, uuid, LONGEST_RETRY)
    assert locked_out(agent) == 0


def test_a_workspace_that_starts_is_replaced_as_well(world: World) -> None:
    """Its start may have begun before a sleep had ended what ran."""
    made, woken = world.sessions.create(NewSession(user_id="ada")).uuid, world.asleep()
    world.sessions.wake(woken)
    stops = stopped(world)
    for uuid, status in ((made, Status.CREATED), (woken, Status.WAKING)):
        record = world.sessions.revoke(uuid, restart=True)
        assert (record.status, record.stopping) == (status, True)
    world.work()
    assert stopped(world) == stops + 2
    for uuid in (made, woken):
        world.runtime.become_ready(uuid)
        world.look(uuid)
        sweep_until_paid(world, uuid, LONGEST_RETRY)


def test_a_session_that_sleeps_is_not_started_by_a_revocation(world: World) -> None:
    uuid = world.asleep()
    assert world.sessions.revoke(uuid, restart=True).status is Status.SLEEPING
    assert (world.tasks.sent, still_owed(world, uuid)) == ([], False)


def test_a_worker_that_was_killed_changes_nothing(
    world: World, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the agent's answer and the note of it: it is done once more, and those with a good pass come back."""
    uuid = world.active()
    here(world, agent, uuid)
    world.sessions.revoke(uuid)

    world.work()
    world.now += HANDSHAKE
    world.sweeps.stale()

    class Killed(BaseException):
        pass

    def die(*_args: object) -> bool:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(world.core.revocations), "disconnected", die)
        with pytest.raises(Killed):
            world.work()
    assert still_owed(world, uuid)
    sweep_until_paid(world, uuid, 15)
    assert locked_out(agent) == ENDED + 1


def test_passes_taken_back_while_connections_are_being_ended_are_owed_as_well(
    world: World, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = world.active()
    here(world, agent, uuid)
    world.sessions.revoke(uuid)
    ask = type(world.core.agents).disconnect

    def once_more(self: Any, *to: Any) -> None:
        ask(self, *to)
        monkeypatch.undo()
        world.sessions.revoke(uuid)

    monkeypatch.setattr(type(world.core.agents), "disconnect", once_more)
    task, args = world.tasks.sent.pop()
    assert task == task_queue.LOCK_OUT
    end_connections(world.core, args[0], world.now)
    assert (world.get(uuid).access_epoch, still_owed(world, uuid)) == (2, True)
    world.tasks.lose_all()
    sweep_until_paid(world, uuid, 15)
    assert orders(agent) == [1] + [2] * ENDED


def test_revoking_twice_is_settled_by_one_message(world: World, agent: FakeAgent) -> None:
    uuid = world.active()
    here(world, agent, uuid)
    world.sessions.revoke(uuid)
    world.sessions.revoke(uuid)
    world.tasks.sent.pop()
    sweep_until_paid(world, uuid, 1)
    assert orders(agent) == [2] * ENDED


@pytest.mark.parametrize("restored", [False, True])
def test_a_session_that_is_coming_up_is_not_forgotten(world: World, agent: FakeAgent, restored: bool) -> None:
    """What is called a start may be a sleep that was broken off: who was inside still is."""
    uuid = world.asleep() if restored else world.sessions.create(NewSession(user_id="ada")).uuid
    if restored:
        world.sessions.wake(uuid)
    world.sessions.revoke(uuid)
    assert still_owed(world, uuid)
    world.work()
    world.runtime.become_ready(uuid)
    world.look(uuid)
    assert (world.get(uuid).status, still_owed(world, uuid)) == (Status.ACTIVE, True)
    here(world, agent, uuid)
    sweep_until_paid(world, uuid, 15)
    assert locked_out(agent) == ENDED


def test_a_sleep_that_was_asked_for_does_not_settle_it_and_one_that_is_done_does(
    world: World, agent: FakeAgent
) -> None:
    uuid = world.active()
    here(world, agent, uuid)
    world.sessions.sleep(uuid)
    world.sessions.revoke(uuid)
    assert still_owed(world, uuid)
    world.sessions.wake(uuid)
    world.tasks.lose_all()
    world.core.store.change(uuid, world.now, to=Status.ACTIVE, settle=True)
    here(world, agent, uuid)
    sweep_until_paid(world, uuid, 15)
    assert locked_out(agent) == ENDED, "the sleep was broken off, and nobody had left"

    world.sessions.revoke(uuid)
    world.tasks.lose_all()
    world.sessions.sleep(uuid)
    world.work()
    sweep_until_paid(world, uuid, 15)
    assert orders(agent) == [1] * ENDED


def test_a_session_that_sleeps_owes_nothing(world: World) -> None:
    uuid = world.asleep()
    world.sessions.revoke(uuid)
    assert world.get(uuid).access_epoch == 1
    assert (world.tasks.sent, still_owed(world, uuid)) == ([], False)


def test_a_session_that_is_gone_is_forgotten(world: World) -> None:
    deleted, lost = world.active(), world.active()
    for uuid in (deleted, lost):
        world.sessions.revoke(uuid)
    world.tasks.lose_all()
    world.sessions.delete(deleted, backup=False)
    world.work()
    world.core.redis.delete(keys.SESSION.format(uuid=lost))
    end_connections(world.core, lost, world.now)
    assert world.core.redis.zscore(keys.LOCKOUTS, lost) is None
    sweep_until_paid(world, deleted, 15)
    assert world.core.redis.zcard(keys.LOCKOUTS) == 0


def test_without_a_secret_key_nobody_is_inside(redis_client: redis.Redis, tmp_path: Path) -> None:
    world = World(redis_client, tmp_path, secret_key="")
    uuid = world.active()
    world.sessions.revoke(uuid)
    world.work()
    assert not still_owed(world, uuid)


def test_taking_passes_back_that_somebody_else_took_back_is_refused(world: World) -> None:
    uuid = world.active()
    world.core.revocations.revoke(uuid, 0, world.now)
    with pytest.raises(Superseded):
        world.core.revocations.revoke(uuid, 0, world.now)
    assert world.get(uuid).access_epoch == 1
    assert [event.data for event in world.events_of(uuid) if event.type == "revoked"] == [{"access_epoch": 1}]
