"""What a program in a workspace writes, followed by the browser as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from markupsafe import Markup

from app.web.session.streams import END
from app.web.session.terminal_text import plain
from app.web.sse import STILL_HERE, Event, events, written

OUTPUT = "output"
"""The event with markup to add to what is shown. At `END` the page asks for what became of the program."""

SHOWN = 262_144
"""Characters that one stream shows. A browser that is sent megabytes is of no use any more."""

MORE = Markup('<span class="cut">\nIt writes more, which is not shown here.\n</span>')


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
