"""An agent that answers at once, whatever it is asked to wait for, is asked four times a second; one that never comes
to an end is left after so much."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import AgentUnavailable
from app.core.reach import RETRY
from app.core.services.model import LOG_PIECE, LogPiece, NewService, Service, service_of
from app.core.services.service import LOG_KEPT, Services
from tests.fake_agent import SERVICE
from tests.unit.core.reached import REACH, Clock, reached

STARTING, RUNNING = (service_of("k3v9x0qa", {**SERVICE, "state": state}) for state in ("starting", "running"))
WANTED = NewService(name="web", command="true", port=3_000)


class Hasty:
    """What asks an agent that has nothing new, and answers at once: of the service `found`, and `text` of its log."""

    longest_wait = 8.0

    def __init__(self, found: Service = STARTING, text: str = "") -> None:
        self.calls: list[str] = []
        self.found, self.text, self.fails = found, text, 0

    def start(self, *_: Any) -> tuple[Service, bool]:
        return self._said("start"), True

    def show(self, *_: Any) -> Service:
        return self._said("show")

    def restart(self, *_: Any, **__: Any) -> Service:
        return self._said("restart")

    def stop(self, *_: Any) -> None:
        self._said("stop")

    def piece(self, *_: Any, at: str, **__: Any) -> LogPiece:
        return LogPiece(self._said(at), self.text, 1, 2**53)

    def _said(self, what: str) -> Service:
        self.calls.append(what)
        if self.fails:
            self.fails -= 1
            raise AgentUnavailable("gone")
        return self.found


def services(client: Hasty, clock: Clock) -> Services:
    made: Any = Services
    found: Services = made(reached(clock), client)
    return found


def test_a_waiting_call_asks_it_so_often_and_keeps_whether_the_service_is_new(clock: Clock) -> None:
    client = Hasty()
    found, new = services(client, clock).start("k3v9x0qa", WANTED, REACH, 10.0)
    assert (found.coming, new) == (True, True)
    assert client.calls[0] == "start" and set(client.calls[1:]) == {"show"}
    assert len(client.calls) <= 10.0 / RETRY + 2


def test_nobody_waits_for_a_service_that_is_up(clock: Clock) -> None:
    client = Hasty(RUNNING)
    services(client, clock).start("k3v9x0qa", WANTED, REACH, 10.0)
    services(client, clock).restart("k3v9x0qa", "web", REACH, 10.0)
    services(client, clock).show("k3v9x0qa", "web", REACH, 10.0)
    assert client.calls == ["start", "restart", "show"]


def test_a_start_is_asked_for_again_and_what_would_be_done_twice_is_not(clock: Clock) -> None:
    client = Hasty(RUNNING)
    made = services(client, clock)
    client.fails = 1
    made.start("k3v9x0qa", WANTED, REACH, 10.0)
    for once in (lambda: made.restart("k3v9x0qa", "web", REACH, 10.0), lambda: made.stop("k3v9x0qa", "web", REACH)):
        client.fails = 1
        with pytest.raises(AgentUnavailable):
            once()
    assert client.calls == ["start", "start", "restart", "stop"]


def test_a_stream_asks_it_so_often(clock: Clock) -> None:
    client = Hasty()
    pieces = services(client, clock).follow("k3v9x0qa", "web", None, None, REACH, 10.0, 15.0)
    for _ in pieces:
        assert len(client.calls) <= 10.0 / RETRY + 2
    assert len(client.calls) >= 10.0 / RETRY - 2


@pytest.mark.parametrize(
    ("seen", "tail", "at"), [(None, None, ""), (None, 7, "tail=7"), (5, None, "offset=5"), (5, 7, "offset=5")]
)
def test_a_stream_begins_where_it_broke_or_as_it_is_asked_to(clock: Clock, seen: Any, tail: Any, at: str) -> None:
    client = Hasty()
    pieces = services(client, clock).follow("k3v9x0qa", "web", seen, tail, REACH, 1.0, 15.0)
    next(pieces)
    next(pieces)
    assert client.calls == [at, "offset=1"]


def test_a_log_without_an_end_is_read_as_far_as_one_is_kept(clock: Clock) -> None:
    """Whatever the agent says of its size."""
    client = Hasty(RUNNING, "x" * LOG_PIECE)
    read = sum(map(len, services(client, clock).log("k3v9x0qa", "web", None, REACH)))
    assert LOG_KEPT <= read <= LOG_KEPT + LOG_PIECE


def test_a_log_of_which_nothing_comes_ends(clock: Clock) -> None:
    client = Hasty(RUNNING)
    assert "".join(services(client, clock).log("k3v9x0qa", "web", 9, REACH)) == ""
    assert client.calls == ["tail=9"]
