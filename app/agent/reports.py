"""What the agent tells the manager: events in batches, outcomes until they are taken, and that it is busy."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from app.agent.events import Event
from app.agent.gateway import Gateway, GatewayDown, waits

log = logging.getLogger(__name__)

BATCH_SECONDS = 0.05
"""At least between two calls while a model streams; the first event goes at once, and so does an outcome."""

BATCH_EVENTS = 200
KEPT_EVENTS = 5000
"""While the gateway is away; then all but outcomes is dropped, for the history has it."""

TEXT = 4000
"""Characters of pieces of text that are joined to one event."""

BEAT = 5.0
"""Seconds after which a running turn is heard of, events or not; half of what the manager goes by."""

REFUSED = frozenset({400, 413, 422})
"""The gateway will never take this; anything else may be different the next time."""


class Reports:
    """A queue of events and the thread that empties it into the gateway.

    `taken` hears which outcomes the manager has; `busy` says whether a turn runs.
    """

    def __init__(self, gateway: Gateway, taken: Callable[[Sequence[str]], None], busy: Callable[[], bool]) -> None:
        self._gateway = gateway
        self._taken = taken
        self._busy = busy
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self._sending = 0
        self._one_at_a_time = 0
        self._stopping = False

    def add(self, event: Event) -> None:
        """Queue an event; never waits."""
        with self._changed:
            last = self._events[-1] if len(self._events) > self._sending else None
            joined = None if last is None else _joined(last, event)
            if joined is not None:
                self._events[-1] = joined
                return
            self._events.append(event)
            if len(self._events) > KEPT_EVENTS:
                self._drop()
            self._changed.notify_all()

    def _drop(self) -> None:
        sent, rest = self._events[: self._sending], self._events[self._sending :]
        kept = [event for event in rest if event.is_terminal]
        log.warning("The gateway is away: %d events are dropped", len(rest) - len(kept))
        self._events = sent + kept

    def stop(self, seconds: float) -> bool:
        """End the thread when everything is sent, or after these seconds; whether everything was."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._events, seconds)

    def run(self) -> None:
        """Send until `stop`, and what is queued then."""
        next_wait = waits()
        sent_at = -math.inf
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._events) or self._stopping, BEAT)
                if self._stopping and not self._events:
                    return
                if not self._events and not self._busy():
                    continue
                due = sent_at + BATCH_SECONDS - time.monotonic()
                self._changed.wait_for(self._pressing, max(0.0, min(BATCH_SECONDS, due)))
            if self._send():
                next_wait = waits()
            else:
                time.sleep(next_wait())
            sent_at = time.monotonic()

    def _pressing(self) -> bool:
        """Whether somebody waits for what is to be sent."""
        return self._stopping or any(event.is_terminal for event in self._events)

    def _send(self) -> bool:
        """Send the next batch; whether the gateway has taken it, or never will."""
        with self._changed:
            batch = self._events[: 1 if self._one_at_a_time else BATCH_EVENTS]
            self._sending = len(batch)
        body = {"events": [event.document() for event in batch], "busy": self._busy()}
        try:
            status = self._gateway.call("POST", "/agent/v1/events", body).status
        except GatewayDown:
            status = 0
        taken = 200 <= status < 300
        with self._changed:
            self._sending = 0
            if status in REFUSED and len(batch) > 1:
                # One of them is at fault; the others needn't suffer.
                self._one_at_a_time = len(batch)
                return True
            if not taken and status not in REFUSED:
                return False
            del self._events[: len(batch)]
            self._one_at_a_time = max(0, self._one_at_a_time - 1)
        if not taken:
            log.warning("The gateway refuses an event (status %d); it is dropped", status)
        self._tell([event.message_id for event in batch if event.is_terminal])
        with self._changed:
            self._changed.notify_all()
        return True

    def _tell(self, ids: Sequence[str]) -> None:
        try:
            if ids:
                self._taken(ids)
        except OSError:
            log.warning("It can't be noted that outcomes were reported; they will be again")


def _joined(last: Event, event: Event) -> Event | None:
    """Two pieces of the same text as one, or None."""
    if last.type != "token" or event.type != "token" or last.message_id != event.message_id:
        return None
    if "again" in last.data or "again" in event.data:
        return None
    text = str(last.data["text"]) + str(event.data["text"])
    return replace(last, data={"text": text}) if len(text) <= TEXT else None
