"""What an agent tells of a command is a stranger's: it has the types of a true answer, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.protocol import ExecReason
from app.core.execs.model import exec_of, piece_of
from tests.fake_agent import EXEC

PIECE = {**EXEC, "stdout": {"text": "a", "next": 1}, "stderr": {"text": "", "next": 0}, "more": False}

WRONG: dict[str, Any] = {
    "no object": 7,
    "an id that is an address": {**EXEC, "id": "../other"},
    "no command": {**EXEC, "command": None},
    "a command of numbers": {**EXEC, "command": [1]},
    "another state": {**EXEC, "state": "queued"},
    "no exit code": {**EXEC, "exit_code": "0"},
    "a flag as an exit code": {**EXEC, "exit_code": True},
    "an exit code that is none": {**EXEC, "exit_code": 256},
    "a signal that is none": {**EXEC, "signal": "rm -rf"},
    "a signal of another type": {**EXEC, "signal": 9},
    "another reason": {**EXEC, "reason": "bored"},
    "a time that is none": {**EXEC, "started_at": 1e12},
    "an endless time": {**EXEC, "ended_at": float("inf")},
    "a negative duration": {**EXEC, "ms": -1},
    "a huge size": {**EXEC, "sizes": {"stdout": 2**60, "stderr": 0}},
    "one size": {**EXEC, "kept": {"stdout": 0}},
    "an output that is no text": {**EXEC, "stdout": ["a"]},
    "a text for a flag": {**EXEC, "truncated": "no"},
}


def test_a_true_answer_is_read() -> None:
    found = exec_of("k3v9x0qa", {**EXEC, "exit_code": None, "signal": "SIGTERM", "reason": "killed"})
    assert (found.uuid, found.id, found.exit_code, found.signal, found.reason) == (
        "k3v9x0qa",
        "x1",
        None,
        "SIGTERM",
        ExecReason.KILLED,
    )
    assert not found.running
    assert exec_of("k3v9x0qa", {**EXEC, "command": ["a", "b"]}).command == ["a", "b"]


@pytest.mark.parametrize("told", WRONG.values(), ids=WRONG)
def test_anything_else_is_refused(told: Any) -> None:
    with pytest.raises(ValueError, match="."):
        exec_of("k3v9x0qa", told)


def test_a_piece_is_read_or_refused() -> None:
    piece = piece_of("k3v9x0qa", PIECE)
    assert (piece.texts, piece.following, piece.more) == (
        {"stdout": "a", "stderr": ""},
        {"stdout": 1, "stderr": 0},
        False,
    )
    for name, wrong in (("stdout", "a"), ("stdout", {"text": 1, "next": 1}), ("stderr", {"text": ""}), ("more", 0)):
        with pytest.raises(ValueError, match="."):
            piece_of("k3v9x0qa", {**PIECE, name: wrong})
