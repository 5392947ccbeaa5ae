"""Revoked access: what was opened with them is ended, whatever is lost or dies in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.core.access.revocation import HANDSHAKE, LONGEST_RETRY
from app.core.errors import Superseded
from app.core.redis import keys, task_queue
from app.core.service import NewSession
from app.core.sessions.model import Status
from tests.fake_agent import NO_RESPONSES, FakeAgent
from tests.fakes import raising
from tests.world import World
from workers.agents.disconnect import TRIES, end_connections, replace_workspace

ENDED = 2
"""How often connections are ended for one revocation: at once, and when all handshakes are over."""


def here(world: World, agent: FakeAgent, uuid: str) -> None:
    """The session's agent is there, and beside it the editor."""
    agent.disconnect_secret = world.core.credentials.disconnect_secrets(uuid)[0]
    assert world.core.inbox.agent_here(uuid, agent.address, "pod", "boot-1", world.now)


@pytest.fixture
def uuid(world: World, agent: FakeAgent) -> str:
    """A session that is active, whose agent is there."""
    uuid = world.active()
    here(world, agent, uuid)
    return uuid


def still_owed(world: World, uuid: str) -> bool:
    return world.core.redis.zscore(keys.DISCONNECTS, uuid) is not None


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


def test_connections_are_ended_at_once_and_once_more_when_the_handshakes_of_before_are_over(
    world: World, agent: FakeAgent, uuid: str
) -> None:
    """Forward auth admitted those whose handshake was under way just before the revocation."""
    world.sessions.revoke(uuid)
    assert still_owed(world, uuid)
    assert world.work() == [task_queue.RENEW_TOKEN, task_queue.DISCONNECT]
    assert (orders(agent), still_owed(world, uuid)) == ([1], True)
    end_connections(world.core, uuid, world.now + HANDSHAKE / 2)
    assert still_owed(world, uuid), "a repeated message does not shorten the wait"
    assert sweep_until_paid(world, uuid, 2) <= 1
    assert (orders(agent), world.get(uuid).status) == ([1] * 3, Status.ACTIVE)


def test_a_lost_message_is_sent_again(world: World, agent: FakeAgent, uuid: str) -> None:
    world.sessions.revoke(uuid)
    world.tasks.lose_all()
    world.sweeps.stale()
    assert task_queue.DISCONNECT not in world.work(), "it may still be on its way"
    assert sweep_until_paid(world, uuid, 15) == pytest.approx(world.settings.stale_after, abs=1)
    assert len(orders(agent)) == ENDED
    world.now += 3_600
    world.sweeps.stale()
    assert task_queue.DISCONNECT not in world.work()


@pytest.mark.slow
def test_a_start_that_takes_long_is_looked_at_less_and_less_often(world: World, agent: FakeAgent) -> None:
    """What is called a start may be a sleep that was broken off: who was inside still is, and it may yet come up."""
    uuid = world.asleep(idle_timeout=0)
    world.sessions.wake(uuid)
    world.sessions.revoke(uuid)
    asked = 0
    for _ in range(3_600):
        world.sweeps.stale()
        asked += world.work().count(task_queue.DISCONNECT)
        world.now += 1
    assert still_owed(world, uuid)
    assert 10 <= asked <= 3_600 / LONGEST_RETRY + 12


def replaced(world: World) -> int:
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


@pytest.mark.parametrize("answer", [None, b'{"confirmation": "%s"}' % (64 * b"0")], ids=["another secret", "a lie"])
def test_a_workspace_whose_editor_does_not_confirm_is_replaced_once(
    world: World, agent: FakeAgent, uuid: str, answer: bytes | None
) -> None:
    """As where a program stands in the editor's place, which sees every order and all that requests show. After it
    nothing is left of before, so nothing is asked."""
    agent.disconnect_secret, agent.raw_answer = world.core.credentials.editor_secrets(uuid)[0], answer
    world.sessions.revoke(uuid)
    stops = stopped(world)
    assert task_queue.REPLACE in world.work()
    assert (len(orders(agent)), stopped(world), still_owed(world, uuid)) == (TRIES, stops + 1, True)
    assert world.core.inbox.agent(uuid) is None, "no prompt goes to what was replaced"
    comes_up_again(world, uuid)
    sweep_until_paid(world, uuid, LONGEST_RETRY)
    assert (len(orders(agent)), replaced(world)) == (TRIES, 1)


def test_an_agent_whose_new_secret_is_on_its_way_is_asked_again(world: World, agent: FakeAgent, uuid: str) -> None:
    """A revocation changes it; whoever revokes twice changes it twice."""
    agent.statuses = [401] * 9
    world.sessions.revoke(uuid)
    assert task_queue.REPLACE not in world.work()
    assert sweep_until_paid(world, uuid, 2) <= 1


def test_a_workspace_that_hangs_is_replaced_after_seconds(
    world: World, agent: FakeAgent, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delivery worker waits no longer for it, however often it would ask."""
    monkeypatch.setattr("workers.agents.disconnect.PATIENCE", 0.6)
    agent.hang = True
    world.sessions.revoke(uuid)
    assert task_queue.REPLACE in world.work()
    assert len(orders(agent)) <= 2


@pytest.mark.parametrize("response", NO_RESPONSES)
def test_a_workspace_that_answers_a_disconnect_by_no_http_is_replaced(
    world: World, agent: FakeAgent, uuid: str, response: bytes
) -> None:
    agent.raw_response = response
    world.sessions.revoke(uuid)
    assert task_queue.REPLACE in world.work()
    comes_up_again(world, uuid)


def test_a_workspace_whose_agent_is_gone_is_replaced(world: World) -> None:
    uuid = world.active()
    world.sessions.revoke(uuid)
    world.work()
    comes_up_again(world, uuid)
    sweep_until_paid(world, uuid, LONGEST_RETRY)
    assert replaced(world) == 1


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


def test_only_a_workspace_with_a_disconnect_that_is_due_is_replaced(world: World) -> None:
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


def test_a_revocation_with_a_restart_asks_nobody(world: World, agent: FakeAgent, uuid: str) -> None:
    """What a stranger left running would go on; the prompts of the workspace wait for the next agent."""
    stops = stopped(world)
    assert world.sessions.revoke(uuid, restart=True).status is Status.WAKING
    world.work()
    assert (len(orders(agent)), stopped(world)) == (0, stops + 1)
    comes_up_again(world, uuid)
    sweep_until_paid(world, uuid, LONGEST_RETRY)
    assert len(orders(agent)) == 0


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


@pytest.mark.parametrize("restart", [False, True])
def test_a_session_that_sleeps_owes_nothing_and_is_not_started_by_a_revocation(world: World, restart: bool) -> None:
    uuid = world.asleep()
    record = world.sessions.revoke(uuid, restart=restart)
    assert (record.status, world.get(uuid).access_epoch) == (Status.SLEEPING, 1)
    assert (world.tasks.sent, still_owed(world, uuid)) == ([], False)


def test_a_worker_that_was_killed_changes_nothing(
    world: World, agent: FakeAgent, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the agent's answer and the note of it: it is done once more, and those with a good pass come back."""
    world.sessions.revoke(uuid)
    world.work()
    world.now += HANDSHAKE
    world.sweeps.stale()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(world.core.revocations), "disconnected", raising(KeyboardInterrupt()))
        world.work()
    assert still_owed(world, uuid)
    sweep_until_paid(world, uuid, 15)
    assert len(orders(agent)) == ENDED + 1


def test_passes_taken_back_while_connections_are_being_ended_are_owed_as_well(
    world: World, agent: FakeAgent, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sessions.revoke(uuid)
    ask = type(world.core.agents).disconnect

    def once_more(self: Any, *to: Any) -> None:
        ask(self, *to)
        monkeypatch.undo()
        world.sessions.revoke(uuid)

    monkeypatch.setattr(type(world.core.agents), "disconnect", once_more)
    task, args = world.tasks.sent.pop()
    assert task == task_queue.DISCONNECT
    end_connections(world.core, args[0], world.now)
    assert (world.get(uuid).access_epoch, still_owed(world, uuid)) == (2, True)
    world.tasks.lose_all()
    sweep_until_paid(world, uuid, 15)
    assert orders(agent) == [1] + [2] * ENDED


def test_revoking_twice_is_settled_by_one_message(world: World, agent: FakeAgent, uuid: str) -> None:
    assert [world.sessions.revoke(uuid).access_epoch for _ in range(2)] == [1, 2]
    world.tasks.sent.pop()
    sweep_until_paid(world, uuid, 1)
    assert (orders(agent), world.get(uuid).access_epoch) == ([2] * ENDED, 2)


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
    assert len(orders(agent)) == ENDED


def test_a_sleep_that_was_asked_for_does_not_settle_it_and_one_that_is_done_does(
    world: World, agent: FakeAgent, uuid: str
) -> None:
    world.sessions.sleep(uuid)
    world.sessions.revoke(uuid)
    assert still_owed(world, uuid)
    world.sessions.wake(uuid)
    world.tasks.lose_all()
    world.core.store.change(uuid, world.now, to=Status.ACTIVE, settle=True)
    here(world, agent, uuid)
    sweep_until_paid(world, uuid, 15)
    assert len(orders(agent)) == ENDED, "the sleep was broken off, and nobody had left"

    world.sessions.revoke(uuid)
    world.tasks.lose_all()
    world.sessions.sleep(uuid)
    world.work()
    sweep_until_paid(world, uuid, 15)
    assert orders(agent) == [1] * ENDED


def test_a_session_that_is_gone_is_forgotten(world: World) -> None:
    deleted, lost = world.active(), world.active()
    for uuid in (deleted, lost):
        world.sessions.revoke(uuid)
    world.tasks.lose_all()
    world.sessions.delete(deleted, backup=False)
    world.work()
    world.core.redis.delete(keys.SESSION.format(uuid=lost))
    end_connections(world.core, lost, world.now)
    assert not still_owed(world, lost)
    sweep_until_paid(world, deleted, 15)
    assert world.core.redis.zcard(keys.DISCONNECTS) == 0


def test_without_a_secret_key_nobody_is_inside(make_world: Callable[..., World]) -> None:
    world = make_world(secret_key="")
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
