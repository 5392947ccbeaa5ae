"""The steps of a turn, each written to the conversation and told as events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.agent.documents import Message
from app.agent.events import Publish, truncated
from app.agent.model import Call
from app.agent.model_context import NOT_RUN, open_calls
from app.agent.protocol import PROCESSED, Event, Failure
from app.agent.state import State
from app.agent.turn import Ended, RunningTurn


class Steps:
    """Writes the steps of turns. `most` is how many a turn may have. Every method may raise OSError: nothing of the
    step is written then."""

    def __init__(self, state: State, publish: Publish, most: int) -> None:
        self._state = state
        self._publish = publish
        self._most = most

    def begin(self, turn: RunningTurn) -> list[Message]:
        """Count the next step; the turn's messages so far. Raises Ended if it has had too many."""
        messages = self._state.turn_messages(turn.id)
        taken = sum(message["role"] == "assistant" for message in messages)
        if taken >= self._most:
            raise Ended(f"The turn reached its limit of {self._most} steps; ask to go on.", Failure.STEP_LIMIT)
        turn.step = taken + 1
        return messages

    def text(self, turn: RunningTurn, text: str, again: bool) -> None:
        """Tell a piece of the answer; `again` voids the pieces before it."""
        turn.said = text if again else turn.said + text
        data = {"text": text, "again": True} if again else {"text": text}
        self._publish(Event("token", turn.id, data))

    def calls(self, turn: RunningTurn, text: str, calls: Sequence[Call]) -> None:
        """Write a step that calls tools, before they run, with what was spent for it."""
        self._state.append(
            {
                "id": turn.id,
                "role": "assistant",
                "content": text,
                "usage": dict(turn.spent),
                "tool_calls": [{"call_id": call.id, "name": call.name, "arguments": call.arguments} for call in calls],
            }
        )
        turn.noted()

    def begins(self, turn: RunningTurn, call: Call) -> None:
        """Tell that a tool runs."""
        told = {"call_id": call.id, "name": call.name, "arguments": truncated(_arguments(call.arguments))}
        self._publish(Event("tool_call", turn.id, told))

    def result(self, turn: RunningTurn, call: Call, ok: bool, text: str) -> None:
        """Write the result of a call, and tell it."""
        named = {"call_id": call.id, "name": call.name, "ok": ok}
        self._state.append({"id": turn.id, "role": "tool", **named, "content": text})
        self._publish(Event("tool_result", turn.id, {**named, "text": truncated(text)}))

    def answer(
        self, turn: RunningTurn, text: str, *, complete: bool = True, more: Mapping[str, Any] | None = None
    ) -> None:
        """Write the answer, which ends the turn, with what was spent for it. `more` is in the response besides."""
        last = {"id": turn.id, "role": "assistant", "content": text, "usage": dict(turn.spent)}
        told = {**(more or {}), **response([*self._state.turn_messages(turn.id), last])}
        if not complete:
            told["truncated"] = True
        self._state.append({**last, "outcome": {"status": PROCESSED, "response": told}})
        turn.noted()

    def fail(self, turn: RunningTurn, reason: str, code: Failure) -> None:
        """End the turn without an answer; what was told of one, done and spent is in the response all the same. This
        holds even if it can't be written, so that a full disk does not repeat a turn forever."""
        text, usage = turn.said, dict(turn.spent)
        messages = self._state.turn_messages(turn.id)
        if text or usage:
            messages.append({"id": turn.id, "role": "assistant", "content": text, "usage": usage})
        told = response(messages)
        self._state.finish(
            turn.id, failure=(reason, code), text=text, usage=usage, response=told if told["steps"] else {}
        )
        turn.noted()

    def answer_open_calls(self, id_: str, *, first: str) -> None:
        """Add the missing results of calls: `first` for the one that may have run; later ones did not run."""
        messages = self._state.turn_messages(id_)
        names = {call["call_id"]: call["name"] for message in messages for call in message.get("tool_calls") or []}
        for n, call_id in enumerate(open_calls(messages)):
            named = {"call_id": call_id, "name": names[call_id], "ok": False}
            self._state.append({"id": id_, "role": "tool", **named, "content": NOT_RUN if n else first})


def total_usage(steps: Sequence[Message]) -> dict[str, int]:
    """Total tokens of these messages; only a model's have any."""
    prompt = sum((step.get("usage") or {}).get("prompt_tokens", 0) for step in steps)
    completion = sum((step.get("usage") or {}).get("completion_tokens", 0) for step in steps)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def response(messages: Sequence[Message]) -> dict[str, Any]:
    """The response to the prompt of a turn with these messages:
    `{"text", "steps", "tool_calls": [{"name", "ok"}], "usage"}`."""
    steps = [message for message in messages if message["role"] == "assistant"]
    tools = [{"name": message["name"], "ok": message["ok"]} for message in messages if message["role"] == "tool"]
    text = messages[-1]["content"] if steps and messages[-1] is steps[-1] else ""
    return {"text": text, "steps": len(steps), "tool_calls": tools, "usage": total_usage(steps)}


def _arguments(text: str) -> Any:
    """The arguments of a call as an object, or as the text they are if that is none."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text
