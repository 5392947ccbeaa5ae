"""An agent that answers at once, whatever it is asked to wait for, is asked four times a second."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from app.core.execs.model import RUNNING, Piece, exec_of
from app.core.execs.service import Execs
from app.core.reach import RETRY, Reach, Workspaces
from app.core.sessions.model import Status
from tests.fake_agent import EXEC

REACH = Reach(wake=True, seconds=1.0)
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


@pytest.fixture
def clock() -> Any:
    """A time that passes in pauses alone."""
    now = [time.time()]

    def pause(seconds: float) -> None:
        now[0] += seconds

    return SimpleNamespace(now=lambda: now[0], pause=pause)


def service(client: Hasty, clock: Any) -> Execs:
    up = SimpleNamespace(status=Status.ACTIVE)
    sessions, inbox = SimpleNamespace(get=lambda _: up), SimpleNamespace(agent=lambda _: object())
    activity = SimpleNamespace(note=lambda *_: None)
    workspaces: Any = Workspaces
    made: Any = Execs
    found: Execs = made(workspaces(sessions, inbox, activity, "exec", clock.now, clock.pause), client, clock.now)
    return found


def test_a_waiting_call_asks_it_so_often(clock: Any) -> None:
    client = Hasty()
    assert service(client, clock).show("k3v9x0qa", "x1", REACH, 10.0).running
    assert client.asked <= 10.0 / RETRY + 2


def test_a_stream_asks_it_so_often(clock: Any) -> None:
    client = Hasty()
    for _ in service(client, clock).follow("k3v9x0qa", "x1", {"stdout": 0, "stderr": 0}, REACH, 10.0, 15.0):
        assert client.asked <= 10.0 / RETRY + 2
    assert client.asked >= 10.0 / RETRY - 2
