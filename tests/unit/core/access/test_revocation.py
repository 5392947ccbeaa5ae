"""Revoked access: what was opened with them is ended, whatever is lost or dies in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from app.core.access.revocation import HANDSHAKE, LONGEST_RETRY, disconnect_due, nothing_runs
from app.core.errors import Superseded
from app.core.redis import keys, task_queue
from app.core.service import NewSession
from app.core.sessions.model import Status
from tests.fake_agent import FakeAgent
from tests.world import World
from workers.disconnect import end_connections

ENDED = 2
"""How often connections are ended for one revocation: at once, and when all handshakes are over."""


def here(world: World, agent: FakeAgent, uuid: str) -> None:
    assert world.core.inbox.agent_here(uuid, agent.address, "pod", "boot-1", world.now)


def still_owed(world: World, uuid: str) -> bool:
    noted = world.core.redis.zscore(keys.LOCKOUTS, uuid) is not None
    assert noted == disconnect_due(world.get(uuid)), "the record and the sweep's list agree"
    return noted


def locked_out(agent: FakeAgent) -> int:
    return len(orders(agent))


def orders(agent: FakeAgent) -> list[Any]:
    """What it was told to end connections by."""
    return [body for _, path, body in agent.requests if path == "/lockout"]


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
    assert (locked_out(agent), world.get(uuid).disconnected_epoch, still_owed(world, uuid)) == (1, 0, True)
    end_connections(world.core, uuid, world.now + HANDSHAKE / 2)
    assert still_owed(world, uuid), "a repeated message does not shorten the wait"
    assert sweep_until_paid(world, uuid, 2) <= 1
    assert (orders(agent), world.get(uuid).disconnected_epoch) == ([{"access_epoch": 1}] * 3, 1)


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
def test_an_agent_that_is_away_for_long_is_asked_until_it_is_there(world: World, agent: FakeAgent) -> None:
    """Far longer than any task would be tried, and less and less often."""
    uuid = world.active(idle_timeout=0)
    world.sessions.revoke(uuid)
    asked = 0
    for _ in range(3_600):
        world.sweeps.stale()
        asked += world.work().count(task_queue.LOCK_OUT)
        world.now += 1
    assert still_owed(world, uuid)
    assert 10 <= asked <= 3_600 / LONGEST_RETRY + 12
    here(world, agent, uuid)
    assert sweep_until_paid(world, uuid, LONGEST_RETRY + 15) <= LONGEST_RETRY
    assert locked_out(agent) == ENDED


def test_an_agent_that_was_started_again_is_asked_within_seconds(world: World, agent: FakeAgent) -> None:
    uuid = world.active()
    world.sessions.revoke(uuid)
    world.work()
    here(world, agent, uuid)
    assert sweep_until_paid(world, uuid, 10) <= 2


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
    assert (world.get(uuid).disconnected_epoch, locked_out(agent)) == (2, 1 + ENDED)


def test_revoking_twice_is_settled_by_one_message(world: World, agent: FakeAgent) -> None:
    uuid = world.active()
    here(world, agent, uuid)
    world.sessions.revoke(uuid)
    world.sessions.revoke(uuid)
    world.tasks.sent.pop()
    sweep_until_paid(world, uuid, 1)
    assert (world.get(uuid).disconnected_epoch, locked_out(agent)) == (2, ENDED)


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
    assert (locked_out(agent), world.get(uuid).disconnected_epoch) == (ENDED, 2)


def test_a_session_that_sleeps_owes_nothing(world: World) -> None:
    uuid = world.asleep()
    world.sessions.revoke(uuid)
    assert (world.get(uuid).access_epoch, world.get(uuid).disconnected_epoch) == (1, 1)
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
    assert [event.data for event in world.events_of(uuid) if event.type == "revoked"] == [
        {"access_epoch": 1, "door": 1}
    ]


def test_a_record_of_an_earlier_release_owes_nothing_by_itself(world: World) -> None:
    """It has an access epoch and no word of connections; the next revocation settles both."""
    uuid = world.active()
    world.core.redis.hset(keys.SESSION.format(uuid=uuid), "door", "3")
    world.now += 60
    world.sweeps.stale()
    assert task_queue.LOCK_OUT not in world.work()
    assert not nothing_runs(world.get(uuid))
