"""Checks an agent's report of its work, and cuts it to size: the workspace's user may have forged it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.agent.protocol import ENDS, FAILED, PROCESSED, REPORT_EVENTS, TOKEN, TOOL_CALL, TOOL_RESULT, Event
from app.core.errors import InvalidRequest
from app.core.prompts.inbox import ID_PATTERN

SHOWN: Mapping[str, Sequence[str]] = {
    TOKEN: ("text", "again"),
    TOOL_CALL: ("name", "arguments", "call_id"),
    TOOL_RESULT: ("call_id", "name", "ok", "text"),
}
"""The fields of each type in the session's event stream; others are dropped. A token with `again` restarts the text of
its message: the text before belongs to an answer that broke off."""

TEXT_MAX = 4_096
"""Characters of one text in an event, as Redis keeps events in memory; the history has the whole text."""

NAME_MAX = 128
"""Characters of the name of a tool, or the id of a call."""

RESPONSE_MAX = 65_536
"""Characters of JSON of a response; of a longer one, only the beginning of its text is stored."""

FLAGS = frozenset({"again", "ok"})
"""Fields that are true or false."""

LENGTHS: Mapping[str, int] = {"text": TEXT_MAX, "arguments": TEXT_MAX}
"""Characters of an event's fields that are not names."""

ESCAPED = 12
"""Characters that JSON needs for one of a text at most: a surrogate pair."""


def shown(event: Event) -> dict[str, Any]:
    """The data of an event for the session's event stream."""
    kept = [name for name in SHOWN[event.type] if name in event.data]
    return {
        "message_id": event.message_id,
        **{name: _fitting(name, event.data[name]) for name in kept},
    }


def _fitting(name: str, value: Any) -> Any:
    """The value of an event's field, of the type that the API documents."""
    if name in FLAGS:
        return value is True
    if not isinstance(value, str) and not (name == "arguments" and isinstance(value, dict)):
        value = json.dumps(value, ensure_ascii=False)
    return _cut(value, LENGTHS.get(name, NAME_MAX))


@dataclass(frozen=True)
class Report:
    """The body of `POST /agent/v1/events`: events in order, and whether a turn is running."""

    events: Sequence[Event]
    busy: bool

    @classmethod
    def from_json(cls, document: Any) -> Report:
        """The report in a JSON object; raises `InvalidRequest` if any part is invalid."""
        if not isinstance(document, dict):
            raise InvalidRequest("A report must be a JSON object.")
        events, busy = document.get("events", []), document.get("busy", False)
        if not isinstance(events, list) or len(events) > REPORT_EVENTS:
            raise InvalidRequest(f"`events` must be a list of at most {REPORT_EVENTS}.")
        if not isinstance(busy, bool):
            raise InvalidRequest("`busy` must be true or false.")
        return cls([_event(event) for event in events], busy)

    def runs(self) -> Iterator[Event | list[Event]]:
        """The events in order: consecutive events for the stream in one list, with consecutive tokens of a message
        joined; each end by itself."""
        run: list[Event] = []
        for event in self.events:
            if event.ends:
                if run:
                    yield run
                    run = []
                yield event
            elif run and _continues(run[-1], event):
                run[-1] = Event(TOKEN, event.message_id, {"text": run[-1].data["text"] + event.data["text"]})
            else:
                run.append(event)
        if run:
            yield run


def _event(given: Any) -> Event:
    if not isinstance(given, dict):
        raise InvalidRequest("An event must be an object.")
    kind, message_id, data = given.get("type"), given.get("message_id"), given.get("data", {})
    if not isinstance(kind, str) or kind not in SHOWN.keys() | ENDS:
        raise InvalidRequest(f"`type` of an event must be one of {', '.join([*SHOWN, *sorted(ENDS)])}.")
    if not isinstance(message_id, str) or not ID_PATTERN.fullmatch(message_id):
        raise InvalidRequest("`message_id` of an event must be a valid id.")
    if not isinstance(data, dict):
        raise InvalidRequest("`data` of an event must be an object.")
    if kind == TOKEN and not isinstance(data.get("text"), str):
        raise InvalidRequest("`text` of a token must be a string.")
    if kind == PROCESSED and not isinstance(data.get("response"), dict):
        raise InvalidRequest("`response` of a processed message must be an object.")
    if kind == FAILED and not isinstance(data.get("reason"), str):
        raise InvalidRequest("`reason` of a failed message must be a string.")
    if kind == FAILED and not isinstance(data.get("response", {}), dict):
        raise InvalidRequest("`response` of a failed message must be an object.")
    return Event(kind, message_id, data)


def _continues(before: Event, event: Event) -> bool:
    """Whether both are tokens of one message that fit into one event."""
    if not before.type == event.type == TOKEN or before.message_id != event.message_id:
        return False
    if "again" in before.data or "again" in event.data:
        return False
    return len(before.data["text"]) + len(event.data["text"]) <= TEXT_MAX


def _cut(value: Any, length: int) -> Any:
    """The value; if its JSON is too long, its text, cut. Text that JSON escapes to a multiple is cut shorter."""
    written = json.dumps(value)
    if len(written) <= 2 * length and not (isinstance(value, str) and len(value) > length):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    kept = text[:length]
    return (kept if len(json.dumps(kept)) <= 2 * length else text[: length // 3]) + "…"


def fitted(response: Mapping[str, Any]) -> Mapping[str, Any]:
    """The response, cut if too long. It is not refused, as the agent would only send it again."""
    if len(json.dumps(response)) <= RESPONSE_MAX:
        return response
    return {"text": str(response.get("text", ""))[: RESPONSE_MAX // ESCAPED], "truncated": True}
