"""What happens in a turn, told to whoever listens: the manager, and clients that watch a stream."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.agent.text import cut

PROCESSED = "processed"
FAILED = "failed"
TERMINAL = frozenset({PROCESSED, FAILED})

SHOWN = 2000
"""Characters of an argument or a result that an event carries; the history has all of it."""

WATCHER_EVENTS = 10_000
"""Kept for a watcher that doesn't read; one that falls further behind is let go."""


@dataclass(frozen=True)
class Event:
    """`type` is token, tool_call, tool_result, processed or failed; `data` depends on it."""

    type: str
    message_id: str
    data: Mapping[str, Any]

    @property
    def is_terminal(self) -> bool:
        return self.type in TERMINAL

    def document(self) -> dict[str, Any]:
        """As JSON holds it, and as the manager takes it."""
        return {"type": self.type, "message_id": self.message_id, "data": dict(self.data)}


Publish = Callable[[Event], None]


def outcome_event(message_id: str, outcome: Mapping[str, Any]) -> Event:
    """The event that tells how a turn ended."""
    if outcome.get("status") == PROCESSED:
        return Event(PROCESSED, message_id, {"response": outcome.get("response", {})})
    return Event(FAILED, message_id, {"reason": outcome.get("reason", ""), "code": outcome.get("code", "")})


def shown(value: Any) -> Any:
    """A value of an event, its texts cut."""
    if isinstance(value, str):
        return cut(value, SHOWN)
    if isinstance(value, Mapping):
        return {name: shown(inner) for name, inner in value.items()}
    return value


class Bus:
    """Passes each event to every listener, and to those who watch its message."""

    def __init__(self, *listeners: Publish) -> None:
        self._listeners = listeners
        self._lock = threading.Lock()
        self._watchers: dict[str, list[queue.Queue[Event | None]]] = {}
        self._closed = False

    def publish(self, event: Event) -> None:
        """Tell everybody. Doesn't wait for anybody."""
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
        """A queue of this message's events from now on; None in it means that no more will come."""
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
        """No more events: those who watch may go."""
        with self._lock:
            self._closed = True
        self.dismiss()

    def dismiss(self) -> None:
        """Those who watch now are to go; others may come."""
        with self._lock:
            for watchers in self._watchers.values():
                for watcher in watchers:
                    with contextlib.suppress(queue.Full):
                        watcher.put_nowait(None)
