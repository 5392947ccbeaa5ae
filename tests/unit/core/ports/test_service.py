"""An agent that answers at once, whatever it is asked to wait for, is asked four times a second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.core.errors import AgentUnavailable
from app.core.ports.model import Port, port_of
from app.core.ports.service import Ports
from app.core.reach import RETRY
from tests.fake_agent import PORT
from tests.unit.core.reached import REACH, Clock, reached

LISTENING = port_of(PORT)
STARTING = port_of({**PORT, "state": "starting"})


class Hasty:
    """What asks an agent that answers at once: of the port `found`, after so many answers that it is starting."""

    def __init__(self, found: Port, starting: int = 0) -> None:
        self.calls: list[float] = []
        self.found, self.starting, self.fails = found, starting, 0

    def show(self, _: Any, port: int, wait: float) -> Port:
        self.calls.append(wait)
        if self.fails:
            self.fails -= 1
            raise AgentUnavailable("gone")
        return replace(STARTING if len(self.calls) <= self.starting else self.found, port=port)

    def known(self, _: Any) -> list[Port]:
        return [replace(self.found, port=port) for port in (5_173, 3_000, 5_173)]


def ports(client: Hasty, clock: Clock) -> Ports:
    made: Any = Ports
    found: Ports = made(reached(clock), client)
    return found


def test_a_call_waits_while_the_port_is_starting(clock: Clock) -> None:
    client = Hasty(LISTENING, starting=3)
    assert ports(client, clock).show("k3v9x0qa", 3_000, REACH, 10.0) == LISTENING
    assert len(client.calls) == 4
    assert all(8.0 < wait <= 10.0 for wait in client.calls)


def test_one_that_stays_so_is_answered_as_it_is_and_asked_so_often(clock: Clock) -> None:
    client = Hasty(STARTING)
    assert ports(client, clock).show("k3v9x0qa", 3_000, REACH, 10.0).coming
    assert 2 < len(client.calls) <= 10.0 / RETRY + 2


def test_nobody_waits_who_does_not_want_to_or_has_nothing_to_wait_for(clock: Clock) -> None:
    for client, wait in ((Hasty(STARTING), 0.0), (Hasty(LISTENING), 10.0)):
        ports(client, clock).show("k3v9x0qa", 3_000, REACH, wait)
        assert len(client.calls) == 1


def test_an_agent_that_does_not_answer_is_asked_again(clock: Clock) -> None:
    client = Hasty(LISTENING)
    client.fails = 1
    assert ports(client, clock).show("k3v9x0qa", 3_000, REACH, 10.0) == LISTENING


def test_they_are_listed_by_number_and_each_once(clock: Clock) -> None:
    """Whatever the agent says."""
    found = ports(Hasty(LISTENING), clock).known("k3v9x0qa", REACH)
    assert [each.port for each in found] == [3_000, 5_173]
