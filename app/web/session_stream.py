"""The stream of the list of sessions: which of them changed, named so that htmx reloads what shows them.

It relays the API's stream over all sessions, `GET /events`. Each event of it becomes one with the session's uuid as
its name; a change of state or an archive also becomes `counts`, and the first state of a session `new`. At `again` the
page reloads its rows, after events that were missed. A stream that the API refuses is refused here too, as for want of
a free one: the page says that it is not live, and the browser asks again, after longer and longer pauses.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from flask import Blueprint, Response, request

from app.core.sessions.model import UUID_PATTERN, Status
from app.web.api import api
from app.web.guard import while_signed_in
from app.web.relay import relayed
from app.web.sse import STILL_HERE, Event, events, written

blp = Blueprint("web_sessions_stream", __name__)

BEGIN, AGAIN, COUNTS, NEW = "begin", "again", "counts", "new"

COUNTED = ("state", "phase")
"""Types of events after which a session may be in another tab. The API's stream has one phase only, `archived`."""

LATE = 60.0
"""s since a page was made, after which its stream is taken to have been open or refused before."""


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
            yield STILL_HERE
        elif event.type == BEGIN:
            yield written(event.id, AGAIN if late and not event.data.get("complete", True) else BEGIN)
        else:
            yield b"".join(written(event.id, name) for name in names_of(event))


def names_of(event: Event) -> list[str]:
    """The names of the list's events for one of the API; none for one that concerns no session."""
    uuid = event.data.get("uuid")
    if not isinstance(uuid, str) or not UUID_PATTERN.fullmatch(uuid):
        return []
    if event.type not in COUNTED:
        return [uuid]
    return [uuid, COUNTS, NEW] if event.data.get("status") == Status.CREATED else [uuid, COUNTS]
