"""The stream of the list of sessions: which of them changed, named so that htmx reloads what shows them.

It relays the API's stream over all sessions, `GET /events`. Each event of it becomes one with the session's uuid as
its name; a change of state or an archive also becomes `counts`, and the first state of a session `new`. At `again` the
page reloads its rows, after events that were missed. A stream that the API refuses is refused here too, as for want of
a free one: the page says that it is not live, and the browser asks again, after longer and longer pauses.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, request

from app.core.sessions.model import UUID_PATTERN, Status
from app.web.api import api
from app.web.guard import while_signed_in
from app.web.relay import relayed

blp = Blueprint("web_sessions_stream", __name__)

BEGIN, AGAIN, COUNTS, NEW = "begin", "again", "counts", "new"

COUNTED = ("state", "phase")
"""Types of events after which a session may be in another tab. The API's stream has one phase only, `archived`."""

LATE = 60.0
"""s since a page was made, after which its stream is taken to have been open or refused before."""

LONGEST = 1_048_576
"""Bytes of one event; the API's are far shorter."""


@dataclass(frozen=True)
class Event:
    """One event of a stream of the API."""

    id: str
    type: str
    data: Mapping[str, Any]


@blp.get("/sessions/stream")
def stream() -> Response:
    """The list's stream; `user_id` is for keys that see one user at a time. It goes on after the browser's last event,
    or after that of `after`, which is when its page was made."""
    resumed = request.headers.get("Last-Event-ID", "")
    last = resumed or request.args.get("after", "")
    query = {"user_id": request.args.get("user_id") or None}
    streamed = api().open("GET", "/events", query=query, headers={"Last-Event-ID": last} if last else {})
    if streamed.status != 200:
        return relayed(streamed)
    late = bool(resumed) or time.time() - moment_of(last) > LATE
    return relayed(streamed, while_signed_in(lines(streamed.pieces, late=late)))


def moment_of(event_id: str) -> float:
    """When an event was, which its id begins with in ms; 0 for none."""
    milliseconds = event_id.partition("-")[0]
    return int(milliseconds) / 1000 if milliseconds.isdecimal() else 0.0


def lines(pieces: Iterable[bytes], *, late: bool) -> Iterator[bytes]:
    """The lines for the list, of a stream of the API. Only a `late` one may lack events: the page of another was made
    just now, when there may have been none."""
    for event in events(pieces):
        if event is None:
            yield b": still here\n\n"
        elif event.type == BEGIN:
            yield sse(event.id, [AGAIN] if late and not event.data.get("complete", True) else [BEGIN])
        else:
            yield sse(event.id, names_of(event))


def names_of(event: Event) -> list[str]:
    """The names of the list's events for one of the API; none for one that concerns no session."""
    uuid = event.data.get("uuid")
    if not isinstance(uuid, str) or not UUID_PATTERN.fullmatch(uuid):
        return []
    if event.type not in COUNTED:
        return [uuid]
    return [uuid, COUNTS, NEW] if event.data.get("status") == Status.CREATED else [uuid, COUNTS]


def sse(event_id: str, names: Iterable[str]) -> bytes:
    """Events in the wire format, with some data: a browser passes none on that has none."""
    return "".join(f"id: {event_id}\nevent: {name}\ndata: 1\n\n" for name in names).encode()


def events(pieces: Iterable[bytes]) -> Iterator[Event | None]:
    """The events of a stream of the API, None for a comment that keeps the connection. Ends at one that is too
    long."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n\n")
        for text in whole:
            lines = dict(line.partition(": ")[::2] for line in text.decode().split("\n"))
            if "data" not in lines:
                yield None
                continue
            data = json.loads(lines["data"])
            if isinstance(data, dict):
                yield Event(lines.get("id", ""), lines.get("event", "message"), data)
        if len(rest) > LONGEST:
            return
