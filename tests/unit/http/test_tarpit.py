"""Refusals that come one after the other are heard later and later, and nobody else's are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask, Response, abort, request

from app.api.security import tarpit_name
from app.core.byte_budget import ByteBudget
from app.gateway.identity import who_asks
from app.http.bodies import body_of_request, register_bodies
from app.http.tarpit import BURST, CALLERS, LONGEST, RATE, Tarpit, register_tarpit

ROOM = 10_000
"""Bytes."""


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_is_answered_at_once_and_what_follows_at_a_pace(clock: Clock) -> None:
    tarpit = Tarpit(clock)
    assert [tarpit.delay("one") for _ in range(BURST)] == [0.0] * BURST
    assert [tarpit.delay("one") for _ in range(3)] == pytest.approx([1 / RATE, 2 / RATE, 3 / RATE])
    assert tarpit.delay("other") == 0.0


def test_nobody_waits_longer_than_the_longest_and_quiet_is_forgiven(clock: Clock) -> None:
    tarpit = Tarpit(clock)
    delays = [tarpit.delay("one") for _ in range(1_000)]
    assert max(delays) == pytest.approx(LONGEST)
    clock.now += LONGEST + BURST / RATE
    assert [tarpit.delay("one") for _ in range(BURST)] == [0.0] * BURST


def test_a_client_that_waits_for_each_answer_is_held_to_the_pace(clock: Clock) -> None:
    tarpit, began = Tarpit(clock), clock.now
    for _ in range(200):
        clock.now += tarpit.delay("one")
    assert 200 / (clock.now - began) == pytest.approx(RATE, rel=0.15)


def test_callers_are_forgotten_once_they_are_quiet_and_are_bounded(clock: Clock) -> None:
    tarpit = Tarpit(clock)
    for number in range(CALLERS):
        tarpit.delay(f"caller {number}")
    assert [tarpit.delay("one more") for _ in range(2 * BURST)] == [0.0] * (2 * BURST)
    clock.now += BURST / RATE
    assert [tarpit.delay("one more") for _ in range(2 * BURST)][-1] > 0


@pytest.mark.parametrize("name", [tarpit_name, who_asks])
def test_all_addresses_of_an_ipv6_network_are_one_caller(name: Callable[[], str]) -> None:
    """Whoever has a /64 would else have a burst for each of its addresses."""
    names = set()
    for address in ("2001:db8::1", "2001:db8::2:3"):
        with Flask("test").test_request_context(environ_base={"REMOTE_ADDR": address}):
            names.add(name())
    assert names == {"ip:2001:db8::/64"}


class Served:
    """An app that refuses all but `/fine`, whose callers say who they are; `waited` is what it slept."""

    def __init__(self, connections: int = 80) -> None:
        self.app, self.waited, self.held = Flask("test"), list[float](), list[int]()
        self.budget = ByteBudget(ROOM)
        register_bodies(self.app, self.budget)
        tarpit = Tarpit(Clock(), self._sleep)
        register_tarpit(self.app, lambda: request.headers.get("Who", ""), connections, tarpit)
        self.app.add_url_rule("/<path>", view_func=self._view, methods=["POST"])

    def _view(self, path: str) -> Response:
        request.max_content_length = 1_000
        body_of_request()
        if path != "fine":
            abort(int(path))
        return Response("fine")

    def _sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.held.append(ROOM - self.budget.left)

    def ask(self, path: str, who: str) -> int:
        return self.app.test_client().post(f"/{path}", headers={"Who": who}, data=b"x" * 900).status_code


@pytest.mark.parametrize("status", [401, 403, 404, 413, 422, 429])
def test_refusals_are_held_back(status: int) -> None:
    served = Served()
    assert [served.ask(str(status), "one") for _ in range(BURST + 2)] == [status] * (BURST + 2)
    assert len(served.waited) == 2


@pytest.mark.parametrize(("path", "who"), [("fine", "one"), ("503", "one"), ("429", "")])
def test_what_is_no_refusal_and_the_products_own_calls_are_not(path: str, who: str) -> None:
    served = Served()
    for _ in range(3 * BURST):
        served.ask(path, who)
    assert served.waited == []


def test_what_is_held_back_holds_none_of_the_bytes_that_others_need() -> None:
    served = Served()
    for _ in range(2 * BURST):
        served.ask("422", "one")
    assert served.held == [0] * BURST


def test_above_its_share_of_the_connections_a_refusal_is_heard_at_once() -> None:
    served = Served(connections=7)
    for _ in range(2 * BURST):
        served.ask("429", "one")
    assert served.waited == []
