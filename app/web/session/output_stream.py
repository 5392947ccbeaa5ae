"""What a program in a workspace writes, followed by the browser as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from flask import Response, request
from markupsafe import Markup

from app.web.api import api
from app.web.guard import while_signed_in
from app.web.relay import relayed
from app.web.session.terminal_text import plain
from app.web.session.workspace import NO_WAKE
from app.web.sse import STILL_HERE, Event, events, written

OUTPUT, END = "output", "end"
"""The events of the stream: markup to add to what is shown; and that there is no more, so that the page asks for what
became of the program."""

SHOWN = 262_144
"""Characters that one stream shows. A browser that is sent megabytes is of no use any more."""

MORE = Markup('<span class="cut">\nIt writes more, which is not shown here.\n</span>')


def follow(path: str, **query: Any) -> Response:
    """The stream about a program at this path of the API, for htmx. It goes on after the browser's last event. Where
    there is none, as while the session sleeps, it ends at once: a browser would ask again and again."""
    seen = request.headers.get("Last-Event-ID")
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": seen} if seen else {})
    streamed = api().open("GET", path, query=query | NO_WAKE, headers=headers)
    if streamed.status in (404, 409):
        cast(Any, streamed.pieces).close()
        return ended()
    pieces = while_signed_in(shown(streamed.pieces)) if streamed.status == 200 else None
    return relayed(streamed, pieces)


def ended() -> Response:
    """The stream about a program of which there is no more to tell."""
    return Response(written("", END), mimetype="text/event-stream")


def shown(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The events of an API's stream about a program as the page takes them: each text as an element of the class that
    its stream names, until `SHOWN` are passed; last `END`, also where that breaks off, as when the session sleeps: a
    browser would take it for a lost connection."""
    left = SHOWN
    for event in events(pieces):
        if event is None:
            yield STILL_HERE
        elif "text" not in event.data:
            yield written(event.id, END)
            return
        elif left > 0:
            left -= len(event.data["text"])
            yield written(event.id, OUTPUT, _element(event) + (MORE if left <= 0 else ""))
        else:
            # Without anything sent it would go on unnoticed when the browser has left, or the person is signed out.
            yield STILL_HERE
    yield written("", END)


def _element(event: Event) -> Markup:
    return Markup('<span class="{}">{}</span>').format(event.type, plain(event.data["text"]))
