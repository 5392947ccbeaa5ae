"""A conversation as turns: a prompt, and what the agent said and did until its answer.

The messages and events come from a workspace: any of their parts may be missing, or of another kind than it should be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST_SHOWN = 8_000
"""Characters of a tool's arguments or result that are shown."""

QUEUED, DELIVERED, PROCESSED, FAILED = "queued", "delivered", "processed", "failed"


@dataclass
class Said:
    """A text of the agent."""

    text: str

    kind = "said"


@dataclass
class ToolCall:
    """A call of a tool. `result` and `ok` are None until it has ended."""

    call_id: str
    name: str
    arguments: str = ""
    result: str | None = None
    ok: bool | None = None

    kind = "tool"

    @property
    def brief(self) -> str:
        """The first line of the arguments' first value: the command, the path."""
        try:
            values = [each for each in json.loads(self.arguments).values() if isinstance(each, str)]
        except (ValueError, AttributeError):
            values = []
        return (values[0].splitlines() or [""])[0][:120] if values else ""


@dataclass
class Turn:
    """A prompt and its answer. `prompt` is None where an earlier page has it; `reason` is why it failed."""

    id: str
    prompt: str | None = None
    at: str = ""
    state: str = DELIVERED
    reason: str = ""
    steps: list[Said | ToolCall] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self.state in (PROCESSED, FAILED)

    @property
    def calls(self) -> dict[str, ToolCall]:
        """The calls of tools by their ids."""
        return {step.call_id: step for step in self.steps if isinstance(step, ToolCall)}


def turns_of(messages: Iterable[Mapping[str, Any]]) -> list[Turn]:
    """The turns of consecutive messages."""
    turns: list[Turn] = []
    for message in messages:
        id_, role = text_of(message.get("id")), message.get("role")
        if role == "user" or not turns or turns[-1].id != id_:
            turns.append(Turn(id_))
        _add(turns[-1], role, message)
    return turns


def settled(turns: list[Turn], *, going: bool) -> list[Turn]:
    """The turns; one without an end is over if a later one began. `going`: the last one may go on."""
    over = not going
    for turn in reversed(turns):
        if over and turn.state == DELIVERED:
            turn.state = PROCESSED
        over = over or turn.over
    return turns


def _add(turn: Turn, role: Any, message: Mapping[str, Any]) -> None:
    content = text_of(message.get("content"))
    if role == "user":
        turn.prompt, turn.at = content, text_of(message.get("at"))
        turn.state = text_of(message.get("state")) or DELIVERED
    elif role == "tool":
        _end(turn, message, content)
    else:
        if content:
            turn.steps.append(Said(content))
        for call in _mappings(message.get("tool_calls")):
            _begin(turn, call)
    outcome = message.get("outcome")
    if isinstance(outcome, Mapping):
        turn.state = FAILED if outcome.get("status") == FAILED else PROCESSED
        turn.reason = text_of(outcome.get("reason"))


def add_events(turn: Turn, events: Iterable[Mapping[str, Any]]) -> None:
    """Add what the events of an unfinished turn, oldest first, tell beyond its messages."""
    own = [event for event in events if event["data"].get("message_id") == turn.id]
    known = turn.calls
    written = max((index for index, event in enumerate(own) if event["data"].get("call_id") in known), default=-1)
    for index, event in enumerate(own):
        data = event["data"]
        match event["type"]:
            case "token" if index > written:
                _say(turn, text_of(data.get("text")), again=data.get("again") is True)
            case "tool_call" if text_of(data.get("call_id")) not in known:
                _begin(turn, data)
            case "tool_result":
                _end(turn, data, text_of(data.get("text")))


def _say(turn: Turn, text: str, *, again: bool) -> None:
    last = turn.steps[-1] if turn.steps else None
    if not isinstance(last, Said):
        turn.steps.append(Said(text))
    else:
        last.text = text if again else last.text + text


def _begin(turn: Turn, call: Mapping[str, Any]) -> None:
    arguments = call.get("arguments")
    turn.steps.append(ToolCall(text_of(call.get("call_id")), text_of(call.get("name")), shown(arguments)))


def _end(turn: Turn, result: Mapping[str, Any], text: str) -> None:
    call_id = text_of(result.get("call_id"))
    call = turn.calls.get(call_id)
    if call is None:
        call = ToolCall(call_id, text_of(result.get("name")))
        turn.steps.append(call)
    if call.result is None:
        call.result, call.ok = shown(text), result.get("ok") is True


def shown(value: Any) -> str:
    """Arguments or a result as text, cut."""
    text = _unfolded(value)
    more = len(text) - LONGEST_SHOWN
    return text if more <= 0 else f"{text[:LONGEST_SHOWN]}\n… {more:,} more characters"


def _unfolded(value: Any) -> str:
    """JSON over several lines; any other text as it is."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return str(value)
        if not isinstance(value, Mapping):
            return str(value) if isinstance(value, str) else json.dumps(value)
    return "" if value is None else json.dumps(value, indent=2, ensure_ascii=False)


def text_of(value: Any) -> str:
    """A text; anything else than one as JSON, "" for nothing."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
