"""Server-sent events: the wire format, and a stream that connects again where it broke off."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, TypeVar

import httpx

from workspaces.errors import ConnectionFailed, InvalidAnswer, WaitTimedOut
from workspaces.http import Http
from workspaces.retries import connection_error

STREAM: Final = "text/event-stream"

SILENCE: Final = 45.0
"""s without a byte after which a stream counts as dead: three of the comment lines that the service sends meanwhile."""

MOST_BROKEN: Final = 8
"""Connections in a row that bring nothing, after which a stream is given up: about half a minute."""

T = TypeVar("T")


@dataclass(frozen=True)
class Raw:
    """One event as it was sent; `data` is its JSON object."""

    id: str
    type: str
    data: Mapping[str, Any]


def parse(lines: Iterable[str]) -> Iterator[Raw | None]:
    """The events of a stream's lines; None for each line that ends none, as a sign of life."""
    event_id, kind, data = "", "message", list[str]()
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match name:
                case "id":
                    event_id = value
                case "event":
                    kind = value
                case "data":
                    data.append(value)
            yield None
            continue
        if data:
            yield Raw(event_id, kind, _object("\n".join(data)))
        kind, data = "message", []


def _object(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidAnswer("An event's data is not JSON.") from error
    if not isinstance(found, dict):
        raise InvalidAnswer("An event's data is not a JSON object.")
    return found


def read(http: Http, response: httpx.Response, deadline: float | None = None) -> Iterator[Raw | None]:
    """The events of an answer, as `parse`. Raises `ConnectionFailed` when it breaks, `WaitTimedOut` at the deadline, of
    the monotonic clock."""
    try:
        for event in parse(lines_of(response, deadline)):
            check(deadline)
            yield event
    except httpx.TransportError as error:
        check(deadline)
        raise connection_error(error, http.url) from error


def lines_of(response: httpx.Response, deadline: float | None) -> Iterator[str]:
    """The lines of an answer. Near the deadline they end after a comment: the stream may have been silent for longer
    than is left then, so it has to be opened again to end in time."""
    for line in response.iter_lines():
        yield line
        if line.startswith(":") and silence(deadline) < SILENCE:
            return


def follow(
    http: Http,
    path: str,
    after: str | None,
    deadline: float | None = None,
    query: Mapping[str, Any] | None = None,
) -> Iterator[Raw]:
    """The events of a stream, without end: it is opened again after the last event that came, when the connection
    breaks and when the service ends it. Raises what opening it raises, `ConnectionFailed` after `MOST_BROKEN`
    connections in a row that brought nothing, and `WaitTimedOut`."""
    broken = 0
    while True:
        check(deadline)
        try:
            with http.stream(
                "GET",
                path,
                query=query,
                accept=STREAM,
                headers={"Last-Event-ID": after} if after else {},
                read_timeout=silence(deadline),
            ) as response:
                for event in read(http, response, deadline):
                    broken = 0
                    if event is not None:
                        after = event.id or after
                        yield event
            failure = ConnectionFailed("The service ended the stream of events again and again.")
        except ConnectionFailed as error:
            failure = error
        broken += 1
        if broken > MOST_BROKEN:
            raise failure
        http.sleep(min(http.retries.backoff(broken), silence(deadline)))


def silence(deadline: float | None) -> float:
    """Seconds that a stream may be silent, with this deadline."""
    left = SILENCE if deadline is None else deadline - time.monotonic()
    return min(SILENCE, max(0.01, left))


def check(deadline: float | None) -> None:
    """Raises `WaitTimedOut` if the deadline has passed."""
    if deadline is not None and time.monotonic() >= deadline:
        raise WaitTimedOut("The deadline passed before what was waited for happened.")


class Stream(Generic[T]):
    """Events, or bytes, as they come. Close it, or use it as a context manager, if you stop before its end."""

    def __init__(self, events: Iterator[T]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return next(self._events)

    def close(self) -> None:
        """Close the connection."""
        close = getattr(self._events, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
