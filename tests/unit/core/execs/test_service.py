"""An agent that answers at once, whatever it is asked to wait for, is asked four times a second."""

from __future__ import annotations

from typing import Any

from app.core.execs.model import RUNNING, Piece, exec_of
from app.core.execs.service import Execs
from app.core.reach import RETRY
from tests.fake_agent import EXEC
from tests.unit.core.reached import REACH, Clock, reached

FOREVER = exec_of("k3v9x0qa", {**EXEC, "state": RUNNING, "exit_code": None})


class Hasty:
    """What asks an agent that has nothing new, and answers at once."""

    longest_wait = 8.0

    def __init__(self) -> None:
        self.asked = 0

    def show(self, *_: Any, **__: Any) -> Any:
        self.asked += 1
        return FOREVER

    def piece(self, *_: Any, **__: Any) -> Piece:
        self.asked += 1
        return Piece(FOREVER, {"stdout": "", "stderr": ""}, {"stdout": 0, "stderr": 0}, True)


def service(client: Hasty, clock: Clock) -> Execs:
    made: Any = Execs
    found: Execs = made(reached(clock), client)
    return found


def test_a_waiting_call_asks_it_so_often(clock: Clock) -> None:
    client = Hasty()
    assert service(client, clock).show("k3v9x0qa", "x1", REACH, 10.0).running
    assert client.asked <= 10.0 / RETRY + 2


def test_a_stream_asks_it_so_often(clock: Clock) -> None:
    client = Hasty()
    for _ in service(client, clock).follow("k3v9x0qa", "x1", {"stdout": 0, "stderr": 0}, REACH, 10.0, 15.0):
        assert client.asked <= 10.0 / RETRY + 2
    assert client.asked >= 10.0 / RETRY - 2
