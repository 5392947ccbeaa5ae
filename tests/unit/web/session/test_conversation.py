"""Turns, made of messages and events that may be anything."""

from __future__ import annotations

from typing import Any

import pytest

from app.web.session.conversation import LONGEST_SHOWN, Said, ToolCall, Turn, add_events, settled, shown, turns_of

PROMPT: dict[str, Any] = {"id": "m1", "role": "user", "content": "look", "at": "2026-11-20T08:00:00.000Z"}
ASKED = {
    "id": "m1",
    "role": "assistant",
    "content": "I look.",
    "tool_calls": [{"call_id": "c1", "name": "run_command", "arguments": '{"command": "ls\\nls -a"}'}],
}
RAN = {"id": "m1", "role": "tool", "call_id": "c1", "name": "run_command", "ok": True, "content": "a.py"}
ANSWERED = {"id": "m1", "role": "assistant", "content": "There is a.py.", "outcome": {"status": "processed"}}


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": {"message_id": "m1", **data}}


def text(turn: Turn) -> list[str]:
    return [step.text if isinstance(step, Said) else f"{step.name}: {step.result}" for step in turn.steps]


def test_a_turn_has_its_prompt_and_what_the_agent_said_and_did() -> None:
    (turn,) = turns_of([PROMPT, ASKED, RAN, ANSWERED])
    assert (turn.prompt, turn.state, turn.over) == ("look", "processed", True)
    assert text(turn) == ["I look.", "run_command: a.py", "There is a.py."]
    assert turn.calls["c1"].brief == "ls"


def test_a_failed_turn_says_why() -> None:
    ended = {"id": "m1", "role": "assistant", "outcome": {"status": "failed", "reason": "Too long."}}
    (turn,) = turns_of([PROMPT, ended])
    assert (turn.state, turn.reason) == ("failed", "Too long.")


def test_prompts_that_were_not_begun_keep_their_state() -> None:
    turns = turns_of([PROMPT, {"id": "m2", "role": "user", "content": "and then", "state": "queued"}])
    assert [turn.state for turn in turns] == ["delivered", "queued"]


def test_a_turn_that_goes_on_gets_what_its_events_tell_beyond_its_messages() -> None:
    """Its history has the first answer and the call, whose events came too; the rest is only in events."""
    (turn,) = turns_of([PROMPT, ASKED])
    add_events(
        turn,
        [
            event("token", text="I look."),
            event("tool_call", call_id="c1", name="run_command", arguments={"command": "ls"}),
            event("tool_result", call_id="c1", name="run_command", ok=True, text="a.py"),
            event("token", text="There is no"),
            event("token", text="There ", again=True),
            event("token", text="is a.py."),
            {"type": "token", "data": {"message_id": "m2", "text": "of another turn"}},
        ],
    )
    assert text(turn) == ["I look.", "run_command: a.py", "There is a.py."]


def test_a_turn_without_an_end_is_over_when_a_later_one_began() -> None:
    """Such as one of a conversation that was restored from a backup."""
    later = [{**PROMPT, "id": "m2"}, {**ANSWERED, "id": "m2"}, {**PROMPT, "id": "m3"}]
    turns = settled(turns_of([PROMPT, *later]), going=True)
    assert [turn.state for turn in turns] == ["processed", "processed", "delivered"]
    assert settled(turns_of([PROMPT]), going=False)[0].over


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"id": 7, "role": None, "content": ["a", {"b": 1}]},
        {"id": "m1", "role": "assistant", "tool_calls": "none"},
        {"id": "m1", "role": "assistant", "tool_calls": [None, {"name": 5, "arguments": [1]}]},
        {"id": "m1", "role": "tool", "content": {"x": 1}, "call_id": 3},
        {"id": "m1", "role": "user", "content": None, "outcome": "over", "state": {}},
    ],
)
def test_messages_may_be_anything(message: dict[str, Any]) -> None:
    for turn in turns_of([message]):
        assert isinstance(turn.id, str)
        for step in turn.steps:
            assert isinstance(step.text if isinstance(step, Said) else step.name + step.arguments, str)
            assert not isinstance(step, ToolCall) or step.brief is not None


def test_long_arguments_and_results_are_cut() -> None:
    assert len(shown("x" * 100_000)) < LONGEST_SHOWN + 100
    assert shown("x" * 100_000).endswith("92,000 more characters")
    assert shown('{"a": 1}') == '{\n  "a": 1\n}'
