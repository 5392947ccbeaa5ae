"""What an agent tells of a service is a stranger's: it has the types of a true answer, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.protocol import ExecReason, Restart, ServiceState
from app.core.services.model import LOG_PIECE, piece_of, service_of
from tests.fake_agent import SERVICE

PIECE: dict[str, Any] = {"service": SERVICE, "text": "a", "next": 1, "size": 1}

WRONG: dict[str, Any] = {
    "no object": 7,
    "no name": {**SERVICE, "name": None},
    "a name that is a path": {**SERVICE, "name": "../x"},
    "a long name": {**SERVICE, "name": "x" * 33},
    "no command": {**SERVICE, "command": None},
    "a list for a command": {**SERVICE, "command": ["a"]},
    "no folder": {**SERVICE, "cwd": None},
    "a port that is a text": {**SERVICE, "port": "80"},
    "a flag for a port": {**SERVICE, "port": True},
    "a port of 0": {**SERVICE, "port": 0},
    "a port beyond all": {**SERVICE, "port": 65_536},
    "another restart": {**SERVICE, "restart": "sometimes"},
    "a restart that is a list": {**SERVICE, "restart": ["always"]},
    "a text for a flag": {**SERVICE, "autostart": "no"},
    "another state": {**SERVICE, "state": "asleep"},
    "no state": {**SERVICE, "state": None},
    "an exit code that is none": {**SERVICE, "exit_code": 256},
    "a signal that is none": {**SERVICE, "signal": "rm -rf"},
    "another reason": {**SERVICE, "reason": "bored"},
    "no number of starts": {**SERVICE, "starts": None},
    "a time that is none": {**SERVICE, "started_at": 1e12},
    "an endless time": {**SERVICE, "ended_at": float("inf")},
    "a huge log": {**SERVICE, "log_bytes": 2**60},
}

NO_PIECES: dict[str, Any] = {
    "no service": {**PIECE, "service": None},
    "no text": {**PIECE, "text": None},
    "a text that is longer than a piece": {**PIECE, "text": "a" * (LOG_PIECE + 1)},
    "a position that is a text": {**PIECE, "next": "1"},
    "a negative position": {**PIECE, "next": -1},
    "no size": {**PIECE, "size": None},
    "nothing": {},
}


def test_a_true_answer_is_read() -> None:
    found = service_of("k3v9x0qa", SERVICE)
    assert (found.uuid, found.name, found.port, found.restart) == ("k3v9x0qa", "web", 3_000, Restart.ON_FAILURE)
    assert (found.state, found.exit_code, found.reason, found.ended_at) == (ServiceState.RUNNING, None, None, 0.0)
    ended = {"state": "failed", "port": None, "signal": "SIGKILL", "reason": "killed", "ended_at": 2.5}
    found = service_of("k3v9x0qa", {**SERVICE, **ended})
    assert (found.port, found.signal, found.reason, found.ended_at) == (None, "SIGKILL", ExecReason.KILLED, 2.5)


@pytest.mark.parametrize("told", WRONG.values(), ids=WRONG)
def test_anything_else_is_refused(told: Any) -> None:
    with pytest.raises(ValueError, match="."):
        service_of("k3v9x0qa", told)


@pytest.mark.parametrize("told", NO_PIECES.values(), ids=NO_PIECES)
def test_what_is_no_piece_of_a_log_is_refused(told: Any) -> None:
    assert piece_of("k3v9x0qa", PIECE).text == "a"
    with pytest.raises(ValueError, match="."):
        piece_of("k3v9x0qa", told)


@pytest.mark.parametrize(
    ("state", "more"), [("starting", True), ("running", True), ("waiting", True), ("stopped", False), ("failed", False)]
)
def test_a_log_goes_on_until_the_service_has_ended_for_good_and_all_is_read(state: str, more: bool) -> None:
    service = {**SERVICE, "state": state}
    assert piece_of("k3v9x0qa", {**PIECE, "service": service}).more is more
    assert piece_of("k3v9x0qa", {**PIECE, "service": service, "size": 2}).more
    assert piece_of("k3v9x0qa", {**PIECE, "service": service, "size": 2, "text": ""}).more is more
