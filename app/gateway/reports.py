"""What an agent tells of its work, checked and cut to size: in a workspace its user may write anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.sessions.errors import InvalidRequest
from app.sessions.inbox import ID_PATTERN

TOKEN, TOOL_CALL, TOOL_RESULT = "token", "tool_call", "tool_result"
PROCESSED, FAILED = "processed", "failed"

SHOWN: Mapping[str, Sequence[str]] = {
    TOKEN: ("text", "again"),
    TOOL_CALL: ("name", "arguments", "call_id"),
    TOOL_RESULT: ("call_id", "name", "ok", "text"),
}
"""What the session's event stream carries of each type; the rest of an event is left out. A token with `again`
begins the message's text anew: what was shown of it before belongs to an answer that broke off."""

ENDS = frozenset({PROCESSED, FAILED})

EVENTS_MAX = 1_000
"""Events of one report; an agent sends 20 reports a second."""

TEXT_MAX = 4_096
"""Characters of one text in an event: streams are read by browsers and kept in memory; the history has it whole."""

NAME_MAX = 128
"""Characters of the name of a tool, or the id of a call."""

RESPONSE_MAX = 65_536
"""Characters of JSON of a response; of a longer one only the beginning of its text is kept."""


LENGTHS: Mapping[str, int] = {"text": TEXT_MAX, "arguments": TEXT_MAX}
"""Characters of those fields of an event that are more than a name."""

ESCAPED = 12
"""Characters JSON makes of one of a text at most: of one that UTF-16 writes as two."""


@dataclass(frozen=True)
class Event:
    """One event: its type, the message it is about, and its data."""

    type: str
    message_id: str
    data: Mapping[str, Any]

    @property
    def ends(self) -> bool:
        """Whether it says how a message ended."""
        return self.type in ENDS

    def shown(self) -> dict[str, Any]:
        """The data for the session's event stream."""
        shown = [name for name in SHOWN[self.type] if name in self.data]
        return {
            "message_id": self.message_id,
            **{name: _cut(self.data[name], LENGTHS.get(name, NAME_MAX)) for name in shown},
        }


@dataclass(frozen=True)
class Report:
    """What `POST /agent/v1/events` brings: events in their order, and whether a turn is being worked on."""

    events: Sequence[Event]
    busy: bool

    @classmethod
    def from_json(cls, document: Any) -> Report:
        """The report in a JSON object; raises `InvalidRequest` when any part of it is wrong."""
        if not isinstance(document, dict):
            raise InvalidRequest("A report is a JSON object.")
        events, busy = document.get("events", []), document.get("busy", False)
        if not isinstance(events, list) or len(events) > EVENTS_MAX:
            raise InvalidRequest(f"events is a list of at most {EVENTS_MAX}.")
        if not isinstance(busy, bool):
            raise InvalidRequest("busy is true or false.")
        return cls([_event(event) for event in events], busy)

    def runs(self) -> Iterator[Event | list[Event]]:
        """The events in order: those for the stream in lists as long as can be, tokens of one message that
        follow one another as one; each end by itself."""
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
        raise InvalidRequest("An event is an object.")
    kind, message_id, data = given.get("type"), given.get("message_id"), given.get("data", {})
    if not isinstance(kind, str) or kind not in SHOWN.keys() | ENDS:
        raise InvalidRequest(f"An event's type is one of {', '.join([*SHOWN, *sorted(ENDS)])}.")
    if not isinstance(message_id, str) or not ID_PATTERN.fullmatch(message_id):
        raise InvalidRequest("An event's message_id is the id of a message.")
    if not isinstance(data, dict):
        raise InvalidRequest("An event's data is an object.")
    if kind == TOKEN and not isinstance(data.get("text"), str):
        raise InvalidRequest("A token's text is text.")
    if kind == PROCESSED and not isinstance(data.get("response"), dict):
        raise InvalidRequest("The response of a processed message is an object.")
    if kind == FAILED and not isinstance(data.get("reason"), str):
        raise InvalidRequest("The reason of a failed message is text.")
    return Event(kind, message_id, data)


def _continues(before: Event, event: Event) -> bool:
    """Whether both are tokens of one message that fit into one event."""
    if not before.type == event.type == TOKEN or before.message_id != event.message_id:
        return False
    if "again" in before.data or "again" in event.data:
        return False
    return len(before.data["text"]) + len(event.data["text"]) <= TEXT_MAX


def _cut(value: Any, length: int) -> Any:
    """The value, as text and cut when its JSON is long; text that JSON makes many times longer is cut shorter."""
    written = json.dumps(value)
    if len(written) <= 2 * length and not (isinstance(value, str) and len(value) > length):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    kept = text[:length]
    return (kept if len(json.dumps(kept)) <= 2 * length else text[: length // 3]) + "…"


def fitted(response: Mapping[str, Any]) -> Mapping[str, Any]:
    """The response as it is kept; one that is too long is cut rather than refused, as its agent would only
    send it again."""
    if len(json.dumps(response)) <= RESPONSE_MAX:
        return response
    return {"text": str(response.get("text", ""))[: RESPONSE_MAX // ESCAPED], "truncated": True}
