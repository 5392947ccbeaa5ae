"""What a program writes about a prompt, as the steps of its turn (docs/own-agent.md)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from app.agent.model import ANSWER_CHARACTERS, Call
from app.agent.model_context import INTERRUPTED
from app.agent.protocol import FAILED, PROCESSED, TOKEN, TOOL_CALL, TOOL_RESULT, Failure
from app.agent.steps import Steps
from app.agent.text import clean, cut
from app.agent.tools.registry import RESULT_CHARACTERS
from app.agent.turn import Ended, RunningTurn

log = logging.getLogger(__name__)

NAME_CHARACTERS = 128
"""Of a tool's name and a call's id; the manager shows no more."""

REASON_CHARACTERS = 1_000

NO_RESULT = "the agent told no result"

TYPES = frozenset({TOKEN, TOOL_CALL, TOOL_RESULT, PROCESSED, FAILED})


class Broken(Exception):
    """A line that is not of the contract; the text says what it lacks."""


class Answer:
    """The lines of a program about one prompt, as steps of its turn."""

    def __init__(self, turn: RunningTurn, steps: Steps) -> None:
        self._turn = turn
        self._steps = steps
        self._call: Call | None = None
        self.call_begun = False
        """Whether the program was told to carry the open call out."""
        self.ended = False
        self.failure: Ended | None = None
        """How the turn ended, if it did without an answer."""

    def take(self, line: bytes) -> Call | None:
        """Take a line. Returns a call that may be carried out from now on. Raises Broken, and Ended where the turn had
        too many steps."""
        event = _parsed(line)
        kind = None if event is None else event.get("type")
        if event is None or not isinstance(kind, str) or kind not in TYPES:
            log.warning("The program wrote a line that is no event of the contract; it is ignored")
            return None
        if _text(event, "id") != self._turn.id:
            log.warning("The program wrote of another prompt than the one it works on; that is ignored")
            return None
        if kind == TOOL_CALL:
            return self._begin_call(event)
        if kind == TOKEN:
            self._token(_text(event, "text"), event.get("again") is True)
        elif kind == TOOL_RESULT:
            self._end_call(event)
        elif kind == PROCESSED:
            self._answer(event.get("response"))
        else:
            self._close_call(NO_RESULT)
            reason = cut(_text(event, "reason"), REASON_CHARACTERS)
            self._turn.spent.update(_usage(event))
            self.failure, self.ended = Ended(reason, Failure.of(event.get("code"))), True
        return None

    def interrupt(self) -> None:
        """Note of a call that may have begun that it is not known how far it came."""
        if self.call_begun:
            self._close_call(INTERRUPTED)

    def _token(self, text: str, again: bool) -> None:
        before = "" if again else self._turn.said
        if len(before) + len(text) > ANSWER_CHARACTERS:
            raise Broken(f"its answer has more than {ANSWER_CHARACTERS} characters")
        self._steps.text(self._turn, text, again)

    def _begin_call(self, event: Mapping[str, Any]) -> Call:
        self._close_call(NO_RESULT)
        arguments = event.get("arguments", {})
        told = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        call = Call(_name(event, "call_id"), _name(event, "name"), told)
        self._steps.begin(self._turn)
        self._steps.calls(self._turn, self._turn.said, [call])
        self._call = call
        self._steps.begins(self._turn, call)
        return call

    def _end_call(self, event: Mapping[str, Any]) -> None:
        call = self._call
        if call is None or event.get("call_id") != call.id:
            raise Broken(f"`{TOOL_RESULT}` must have the `call_id` of the `{TOOL_CALL}` before it")
        text = cut(_text(event, "text"), RESULT_CHARACTERS)
        self._call, self.call_begun = None, False
        self._steps.result(self._turn, call, event.get("ok") is True, text)

    def _close_call(self, text: str) -> None:
        if self._call is not None:
            self._steps.result(self._turn, self._call, False, text)
            self._call, self.call_begun = None, False

    def _answer(self, response: Any) -> None:
        if not isinstance(response, dict):
            raise Broken(f"`response` of `{PROCESSED}` must be an object")
        text = _text(response, "text") if "text" in response else self._turn.said
        self._close_call(NO_RESULT)
        self._turn.spent.update(_usage(response))
        self._steps.answer(self._turn, text, more=response)
        self.ended = True


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object in a line, None if it holds none."""
    try:
        event = _cleaned(json.loads(line, parse_constant=_refuse))
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _cleaned(value: Any) -> Any:
    """A JSON value that can be written as UTF-8."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(name): _cleaned(inner) for name, inner in value.items()}
    return [_cleaned(inner) for inner in value] if isinstance(value, list) else value


def _text(event: Mapping[str, Any], name: str) -> str:
    text = event.get(name)
    if not isinstance(text, str):
        raise Broken(f"`{name}` of `{event.get('type', 'response')}` must be a text")
    return text


def _name(event: Mapping[str, Any], name: str) -> str:
    text = _text(event, name)
    if not 0 < len(text) <= NAME_CHARACTERS:
        raise Broken(f"`{name}` of `{event['type']}` must have 1 to {NAME_CHARACTERS} characters")
    return text


def _usage(told: Mapping[str, Any]) -> dict[str, int]:
    """The tokens that a program says it used, as far as that is sensible."""
    usage = told.get("usage")
    if not isinstance(usage, dict):
        return {}
    return {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if _is_count(usage.get(name))}


def _is_count(count: Any) -> bool:
    return isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**53
