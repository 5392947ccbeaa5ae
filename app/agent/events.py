"""The events of a turn, for the manager and for clients that watch a stream."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from app.agent.protocol import FAILED, PROCESSED, Event
from app.agent.text import cut

EVENT_TEXT = 2000
"""Characters of an argument or a result in an event; the history has all of them."""

WATCHER_EVENTS = 10_000
"""Events kept for a slow watcher; one that falls further behind is dropped."""


Publish = Callable[[Event], None]


def outcome_event(message_id: str, outcome: Mapping[str, Any]) -> Event:
    """The event of a turn's end."""
    if outcome.get("status") == PROCESSED:
        return Event(PROCESSED, message_id, {"response": outcome.get("response", {})})
    data = {"reason": outcome.get("reason", ""), "code": outcome.get("code", "")}
    if "response" in outcome:
        data["response"] = outcome["response"]
    return Event(FAILED, message_id, data)


def truncated(value: Any) -> Any:
    """A value for an event, its strings cut."""
    if isinstance(value, str):
        return cut(value, EVENT_TEXT)
    if isinstance(value, Mapping):
        return {name: truncated(inner) for name, inner in value.items()}
    return value


class Bus:
    """Passes each event to every listener, and to the watchers of its prompt."""

    def __init__(self, *listeners: Publish) -> None:
        self._listeners = listeners
        self._lock = threading.Lock()
        self._watchers: dict[str, list[queue.Queue[Event | None]]] = {}
        self._closed = False

    def publish(self, event: Event) -> None:
        """Pass the event on; never blocks."""
        for listener in self._listeners:
            listener(event)
        with self._lock:
            watchers = self._watchers.get(event.message_id, [])
            for watcher in list(watchers):
                try:
                    watcher.put_nowait(event)
                except queue.Full:
                    watchers.remove(watcher)

    @contextlib.contextmanager
    def watch(self, message_id: str) -> Iterator[queue.Queue[Event | None]]:
        """A queue of this prompt's events from now on; None in it ends the stream."""
        watcher: queue.Queue[Event | None] = queue.Queue(WATCHER_EVENTS)
        with self._lock:
            if self._closed:
                watcher.put(None)
            self._watchers.setdefault(message_id, []).append(watcher)
        try:
            yield watcher
        finally:
            with self._lock:
                watchers = self._watchers.get(message_id, [])
                if watcher in watchers:
                    watchers.remove(watcher)
                if not watchers:
                    self._watchers.pop(message_id, None)

    def close(self) -> None:
        """End all streams, also of later watchers."""
        with self._lock:
            self._closed = True
        self.end_streams()

    def end_streams(self) -> None:
        """End the streams of the present watchers."""
        with self._lock:
            for watchers in self._watchers.values():
                for watcher in watchers:
                    with contextlib.suppress(queue.Full):
                        watcher.put_nowait(None)
