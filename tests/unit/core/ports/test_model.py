"""What an agent tells of a port is a stranger's: it has the types of a true answer, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.protocol import PortState
from app.core.ports.model import PROCESS_LENGTH, Port, port_of
from tests.fake_agent import NO_PORT, PORT

WRONG: dict[str, Any] = {
    "no object": 7,
    "a list": [PORT],
    "nothing": {},
    "no port": {**PORT, "port": None},
    "a port that is a text": {**PORT, "port": "3000"},
    "a flag for a port": {**PORT, "port": True},
    "a port with a fraction": {**PORT, "port": 3000.0},
    "a port of 0": {**PORT, "port": 0},
    "a port beyond all": {**PORT, "port": 65_536},
    "no state": {**PORT, "state": None},
    "another state": {**PORT, "state": "open"},
    "a state that is a list": {**PORT, "state": ["listening"]},
    "a process that is a number": {**PORT, "process": 7},
    "a process that is a list": {**PORT, "process": ["node"]},
    "a service that is a number": {**PORT, "service": 7},
    "a service that is no name": {**PORT, "service": "../x"},
    "a service without a name": {**PORT, "service": ""},
    "a service with a long name": {**PORT, "service": "x" * 33},
}


def test_a_true_answer_is_read() -> None:
    assert port_of(PORT) == Port(3_000, PortState.LISTENING, "node", "web")
    assert port_of({"port": 80, **NO_PORT}) == Port(80, PortState.STOPPED, None, None)
    assert port_of({"port": 80, "state": "starting"}).coming
    assert not port_of(PORT).coming


@pytest.mark.parametrize("told", WRONG.values(), ids=WRONG)
def test_anything_else_is_refused(told: Any) -> None:
    with pytest.raises(ValueError, match="."):
        port_of(told)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("next-server (v1)", "next-server (v1)"),
        ("né", "né"),
        ("a\n\x1b[31mb\u202e\0", "a[31mb"),
        ("x" * 10_000, "x" * PROCESS_LENGTH),
        ("", None),
        ("\n", None),
    ],
)
def test_of_a_processs_name_the_beginning_is_kept_that_can_be_shown(said: str, kept: str | None) -> None:
    assert port_of({**PORT, "process": said}).process == kept
