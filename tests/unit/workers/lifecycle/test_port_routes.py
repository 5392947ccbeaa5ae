"""The ingress leads to the opened ports of a session, whatever message was lost and wherever its workspace went."""

from __future__ import annotations

import pytest

from app.core.errors import PermanentError, RetryableError, RuntimeUnavailable
from app.core.redis import keys, task_queue
from tests.world import World


def led(world: World, uuid: str) -> tuple[int, ...]:
    """Where the ingress leads."""
    return world.runtime.workspaces[uuid].ports


def due(world: World, uuid: str) -> bool:
    return world.core.store.pending(keys.OPENINGS, uuid)


def test_an_opened_port_is_led_to_until_it_is_closed(world: World) -> None:
    uuid = world.active()
    world.core.openings.open(uuid, 3000)
    world.core.openings.open(uuid, 5173)
    assert due(world, uuid)
    world.work()
    assert (led(world, uuid), due(world, uuid)) == ((3000, 5173), False)
    world.core.openings.close(uuid, 3000)
    world.work()
    assert (led(world, uuid), due(world, uuid)) == ((5173,), False)


def test_one_message_at_a_time_does_for_any_number_of_changes(world: World) -> None:
    """Visitors may make as many as they like. The last one counts, also where the message was lost."""
    uuid = world.active()
    world.sweep(world.sweeps.stale)
    world.tasks.lose_all()
    openings = world.core.openings
    for port in range(3000, 3100):
        openings.open(uuid, port)
    assert world.tasks.sent == [(task_queue.LEAD_PORTS, (uuid,))]
    world.work()
    assert led(world, uuid) == tuple(range(3084, 3100))
    openings.close(uuid, 3099)
    world.tasks.lose_all()
    openings.open(uuid, 3200)
    assert world.tasks.sent == []
    assert world.catch_up() == [task_queue.LEAD_PORTS]
    assert led(world, uuid) == (*range(3084, 3099), 3200)


def test_a_lost_message_is_sent_again_unless_it_waits(world: World) -> None:
    uuid = world.active()
    world.sweep(world.sweeps.stale)
    world.core.openings.open(uuid, 3000)
    world.pass_time(world.settings.stale_after + 1)
    world.sweeps.stale()
    assert world.tasks.sent == [(task_queue.LEAD_PORTS, (uuid,))], "it waits"
    world.tasks.sent.clear()
    assert world.sweep(world.sweeps.stale) == [], "no earlier than it must"
    assert world.catch_up() == [task_queue.LEAD_PORTS]
    assert (led(world, uuid), due(world, uuid)) == ((3000,), False)
    assert world.catch_up() == []


def test_a_port_that_is_opened_meanwhile_is_led_to_as_well(world: World) -> None:
    """The worker has read the record; before it is done, another port is opened and the message lost."""
    uuid = world.active()
    world.core.openings.open(uuid, 3000)

    def another() -> None:
        world.core.openings.open(uuid, 5173)
        world.tasks.sent.clear()

    world.runtime.meanwhile["lead_ports"] = another
    world.work()
    assert (led(world, uuid), due(world, uuid)) == ((3000, 5173), False)


@pytest.mark.parametrize("error", [RuntimeUnavailable("It is away."), RetryableError("It is busy.")])
def test_it_stays_due_while_the_runtime_is_away(world: World, error: Exception) -> None:
    uuid = world.active()
    world.core.openings.open(uuid, 3000)
    world.runtime.errors["lead_ports"] = error
    with pytest.raises(type(error)):
        world.work()
    assert due(world, uuid)
    world.catch_up()
    assert (led(world, uuid), due(world, uuid)) == ((3000,), False)


def test_what_a_cluster_refuses_is_said_and_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    uuid = world.active()
    world.core.openings.open(uuid, 3000)
    world.runtime.errors["lead_ports"] = PermanentError("The cluster rejected this workspace: no more Ingresses.")
    world.work()
    assert "no more Ingresses" in caplog.text
    assert due(world, uuid)
    world.catch_up()
    assert (led(world, uuid), due(world, uuid)) == ((3000,), False)


def test_a_deleted_session_is_led_to_no_more(world: World) -> None:
    uuid = world.active()
    world.core.openings.open(uuid, 3000)
    world.sessions.delete(uuid)
    world.do(task_queue.LEAD_PORTS, (uuid,))
    assert (led(world, uuid), due(world, uuid)) == ((), False)


def test_a_session_without_a_record_is_due_no_more(world: World) -> None:
    uuid = world.active()
    world.core.openings.open(uuid, 3000)
    world.core.redis.delete(keys.SESSION.format(uuid=uuid))
    world.do(task_queue.LEAD_PORTS, (uuid,))
    assert not due(world, uuid)


def test_one_that_comes_out_of_the_archive_is_led_to_again(saving_world: World) -> None:
    """Its routes were removed with its workspace; its ports stayed opened."""
    world = saving_world
    uuid = world.asleep(ttl=60.0)
    world.core.openings.open(uuid, 3000)
    world.expire(60.0)
    assert uuid not in world.runtime.workspaces
    assert world.get(uuid).opened_ports
    world.wake(uuid)
    assert (led(world, uuid), due(world, uuid)) == ((3000,), False)


def test_a_port_that_is_opened_during_a_start_is_led_to_after_it(world: World) -> None:
    """The task came before the workspace."""
    uuid = world.create()

    def opened() -> None:
        world.core.openings.open(uuid, 3000)
        world.tasks.sent.remove((task_queue.LEAD_PORTS, (uuid,)))
        world.do(task_queue.LEAD_PORTS, (uuid,))

    world.runtime.meanwhile["provision"] = opened
    world.up(uuid)
    assert (led(world, uuid), due(world, uuid)) == ((3000,), False)


def test_a_start_without_opened_ports_leads_to_none(world: World) -> None:
    uuid = world.asleep()
    world.wake(uuid)
    assert "lead_ports" not in world.runtime.called


def test_a_start_whose_worker_dies_before_it_led_to_the_ports_is_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = world.asleep()
    world.core.openings.open(uuid, 3000)
    world.tasks.sent.clear()
    world.core.redis.delete(keys.OPENINGS)

    def dies(*args: object) -> None:
        raise RuntimeUnavailable("The worker is killed.")

    world.sessions.wake(uuid)
    with monkeypatch.context() as moment:
        moment.setattr(world.core.openings, "lead", dies)
        with pytest.raises(RuntimeUnavailable):
            world.work()
    world.catch_up()
    assert (led(world, uuid), due(world, uuid)) == ((3000,), False)
