"""Streams of the API, followed by the browser as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from flask import Response, request

from app.web.api import api
from app.web.guard import while_signed_in
from app.web.relay import relayed
from app.web.sse import written

END = "end"
"""The event that says that there is no more."""


def follow(path: str, events_of: Callable[[Iterable[bytes]], Iterator[bytes]], /, **query: Any) -> Response:
    """The stream at this path of the API, with the events that `events_of` makes of it for htmx. It goes on after the
    browser's last event. Where there is none, as of a command while the session sleeps, it ends at once: a browser
    would ask again and again."""
    seen = request.headers.get("Last-Event-ID")
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": seen} if seen else {})
    streamed = api().open("GET", path, query=query, headers=headers)
    if streamed.status in (400, 404, 409):
        cast(Any, streamed.pieces).close()
        return ended()
    pieces = while_signed_in(events_of(streamed.pieces)) if streamed.status == 200 else None
    return relayed(streamed, pieces)


def ended() -> Response:
    """The stream about something of which there is no more to tell."""
    return Response(written("", END), mimetype="text/event-stream")
