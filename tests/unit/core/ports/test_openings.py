"""Which ports of a session are opened, and that the ingress gets to lead to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from app.core.errors import IllegalState, SessionNotFound, Superseded
from app.core.limit_errors import TooManyPorts
from app.core.ports.openings import TRIES, Openings
from app.core.redis import keys, task_queue
from app.core.sessions.model import Record, Status
from app.core.sessions.opened_ports import OpenedPort
from tests.world import World

MOST = 3


@pytest.fixture
def world(redis_client: redis.Redis, tmp_path: Path) -> World:
    return World(redis_client, tmp_path, ports_per_session=MOST)


@pytest.fixture
def openings(world: World, uuid: str) -> Openings:
    """With nothing sent yet."""
    world.tasks.lose_all()
    return world.core.openings


def opened(world: World, uuid: str) -> list[int]:
    return [each.port for each in world.get(uuid).opened_ports]


def overdue(world: World, uuid: str) -> float | None:
    score = world.core.redis.zscore(keys.OPENINGS, uuid)
    return None if score is None else float(str(score))


def open_another(monkeypatch: pytest.MonkeyPatch, world: World, uuid: str, ports: list[int]) -> None:
    """After each look at the session one of these ports is opened by another call."""
    store, get, others = world.core.store, world.core.store.get, list(ports)
    other = Openings(store, world.core.tasks, 100, 1.0, world.clock)

    def looked(asked: str) -> Record:
        record = get(asked)
        if others:
            port = others.pop()
            with monkeypatch.context() as undone:
                undone.setattr(store, "get", get)
                other.open(uuid, port)
        return record

    monkeypatch.setattr(store, "get", looked)


def test_an_opened_port_stands_in_the_record_and_the_ingress_is_told(
    world: World, uuid: str, openings: Openings
) -> None:
    assert openings.open(uuid, 3_000) == OpenedPort(3_000, int(world.now), 0)
    assert world.get(uuid).opened_ports == (OpenedPort(3_000, int(world.now), 0),)
    assert world.tasks.sent == [(task_queue.LEAD_PORTS, (uuid,))]
    assert overdue(world, uuid) == world.now + world.settings.stale_after


def test_opened_again_it_keeps_its_time_and_changes_who_may_see_it(world: World, uuid: str, openings: Openings) -> None:
    first, until = int(world.now), int(world.now) + 600
    openings.open(uuid, 3_000)
    world.now += 60
    assert openings.open(uuid, 3_000, until) == OpenedPort(3_000, first, until)
    assert openings.open(uuid, 3_000) == OpenedPort(3_000, first, until)
    assert openings.open(uuid, 3_000, 0) == OpenedPort(3_000, first, 0)
    assert world.get(uuid).opened_ports == (OpenedPort(3_000, first, 0),)


def test_the_ingress_is_told_again_where_nothing_changed(world: World, uuid: str, openings: Openings) -> None:
    """The call before may have been killed before it did."""
    openings.open(uuid, 3_000)
    world.tasks.lose_all()
    world.core.store.defer(keys.OPENINGS, uuid, 0.0)
    openings.open(uuid, 3_000)
    assert world.tasks.sent == [(task_queue.LEAD_PORTS, (uuid,))]


def test_of_too_many_the_first_that_is_not_public_is_closed(world: World, uuid: str, openings: Openings) -> None:
    until = int(world.now) + 600
    openings.open(uuid, 1_001, until)
    for port in (1_002, 1_003):
        openings.open(uuid, port)
    openings.open(uuid, 1_004)
    assert opened(world, uuid) == [1_001, 1_003, 1_004]
    world.now = float(until)
    openings.open(uuid, 1_005)
    assert opened(world, uuid) == [1_003, 1_004, 1_005], "it is public no more"


def test_one_that_is_opened_already_closes_no_other(world: World, uuid: str, openings: Openings) -> None:
    for port in (1_001, 1_002, 1_003, 1_002):
        openings.open(uuid, port)
    assert sorted(opened(world, uuid)) == [1_001, 1_002, 1_003]


def test_a_public_port_is_closed_by_none_but_its_own_call(world: World, uuid: str, openings: Openings) -> None:
    until = int(world.now) + 600
    for port in (1_001, 1_002, 1_003):
        openings.open(uuid, port, until)
    with pytest.raises(TooManyPorts):
        openings.open(uuid, 1_004)
    assert opened(world, uuid) == [1_001, 1_002, 1_003]
    openings.open(uuid, 1_002, 0)
    openings.open(uuid, 1_004)
    assert opened(world, uuid) == [1_001, 1_003, 1_004]


def test_a_closed_port_is_gone_and_closing_it_again_is_no_error(world: World, uuid: str, openings: Openings) -> None:
    for port in (1_001, 1_002):
        openings.open(uuid, port)
    world.tasks.lose_all()
    openings.led(world.get(uuid))
    for _ in range(2):
        openings.close(uuid, 1_001)
        assert opened(world, uuid) == [1_002]
    assert world.tasks.sent == [(task_queue.LEAD_PORTS, (uuid,))]


def test_changes_at_the_same_time_are_all_made(
    world: World, uuid: str, openings: Openings, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_another(monkeypatch, world, uuid, [1_001])
    openings.open(uuid, 1_002)
    assert opened(world, uuid) == [1_001, 1_002]
    open_another(monkeypatch, world, uuid, [1_003])
    openings.close(uuid, 1_001)
    assert opened(world, uuid) == [1_002, 1_003]


def test_one_that_others_always_forestall_is_given_up(
    world: World, uuid: str, openings: Openings, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_another(monkeypatch, world, uuid, [*range(1_000, 1_000 + TRIES)])
    with pytest.raises(Superseded):
        openings.open(uuid, 80)
    assert 80 not in opened(world, uuid)


@pytest.mark.parametrize("status", [Status.TERMINATING, Status.TERMINATED])
def test_no_port_of_a_deleted_session_is_opened(world: World, uuid: str, openings: Openings, status: Status) -> None:
    openings.open(uuid, 3_000)
    world.core.store.change(uuid, world.now, status=status)
    world.tasks.lose_all()
    with pytest.raises(IllegalState):
        openings.open(uuid, 4_000)
    assert world.tasks.sent == []
    openings.close(uuid, 3_000)
    assert opened(world, uuid) == []


def test_what_is_no_session_has_no_ports(openings: Openings) -> None:
    calls: list[Any] = [openings.open, openings.close]
    for call in calls:
        with pytest.raises(SessionNotFound):
            call("zzzzzzzz", 3_000)


def test_once_the_ingress_leads_to_them_nothing_is_overdue(world: World, uuid: str, openings: Openings) -> None:
    openings.open(uuid, 3_000)
    world.tasks.lose_all()
    openings.led(world.get(uuid))
    assert (overdue(world, uuid), world.tasks.sent) == (None, [])


def test_a_port_that_was_opened_meanwhile_is_led_to_as_well(world: World, uuid: str, openings: Openings) -> None:
    openings.open(uuid, 3_000)
    seen = world.get(uuid)
    openings.open(uuid, 4_000)
    world.tasks.lose_all()
    openings.led(seen)
    assert world.tasks.sent == [(task_queue.LEAD_PORTS, (uuid,))]
    assert overdue(world, uuid) == world.now + world.settings.stale_after


def test_a_revocation_closes_all(world: World, uuid: str, openings: Openings) -> None:
    openings.open(uuid, 3_000, int(world.now) + 600)
    world.sessions.revoke(uuid)
    assert world.get(uuid).opened_ports == ()
