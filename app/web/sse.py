"""Server-sent events: those of the API's streams read, and those for the browser written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST = 1_048_576
"""Bytes of one event that comes in several pieces; each of the API's comes in one."""

STILL_HERE = b": still here\n\n"
"""A comment, which keeps the connection."""


@dataclass(frozen=True)
class Event:
    """One event of a stream of the API."""

    id: str
    type: str
    data: Mapping[str, Any]


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


def written(event_id: str, name: str, data: str = "1") -> bytes:
    """An event in the wire format, always with some data: a browser passes none on that has none. `data` may have
    several lines, but no carriage return, which would end a line too."""
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"id: {event_id}\nevent: {name}\n{lines}\n".encode()
