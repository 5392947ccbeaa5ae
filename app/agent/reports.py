"""Reports to the manager: events in batches, outcomes until they are accepted, and whether a turn runs."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from app.agent.gateway_client import Gateway, GatewayDown, waits
from app.agent.protocol import REPORT_EVENTS, Event

log = logging.getLogger(__name__)

BATCH_SECONDS = 0.05
"""Between two calls while a model streams, at least; the first event and an outcome are sent at once."""

KEPT_EVENTS = 5000
"""While the gateway is down; beyond this all events but outcomes are dropped: the history has them."""

TEXT = 4000
"""Characters of text that are joined to one event, at most."""

BEAT = 5.0
"""Seconds between two reports of a running turn without events: half of the manager's limit."""

REFUSED = frozenset({400, 413, 422})
"""Statuses of events the gateway will never accept; others are retried."""


class Reports:
    """A queue of events, and the thread that sends them to the gateway.

    `taken` is called with the prompts whose outcomes the manager has; `busy` says whether a turn runs.
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
        """Queue an event; never blocks."""
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
        kept = [event for event in rest if event.ends]
        log.warning("The gateway is down: %d events are dropped", len(rest) - len(kept))
        self._events = sent + kept

    def stop(self, seconds: float) -> bool:
        """End the thread after everything was sent, or after these seconds; whether everything was."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._events, seconds)

    def run(self) -> None:
        """Send until `stop`, then send the rest of the queue."""
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
                self._changed.wait_for(self._is_urgent, max(0.0, min(BATCH_SECONDS, due)))
            if self._send():
                next_wait = waits()
            else:
                time.sleep(next_wait())
            sent_at = time.monotonic()

    def _is_urgent(self) -> bool:
        """Whether the queue must be sent now."""
        return self._stopping or any(event.ends for event in self._events)

    def _send(self) -> bool:
        """Send the next batch; whether the gateway accepted it, or never will."""
        with self._changed:
            batch = self._events[: 1 if self._one_at_a_time else REPORT_EVENTS]
            self._sending = len(batch)
        body = {"events": [event.to_json() for event in batch], "busy": self._busy()}
        try:
            status = self._gateway.call("POST", "/agent/v1/events", body).status
        except GatewayDown:
            status = 0
        taken = 200 <= status < 300
        with self._changed:
            self._sending = 0
            if status in REFUSED and len(batch) > 1:
                # One event is invalid; send the others one by one.
                self._one_at_a_time = len(batch)
                return True
            if not taken and status not in REFUSED:
                return False
            del self._events[: len(batch)]
            self._one_at_a_time = max(0, self._one_at_a_time - 1)
        if not taken:
            log.warning("The gateway refused an event (status %d); it is dropped", status)
        self._note_reported([event.message_id for event in batch if event.ends])
        with self._changed:
            self._changed.notify_all()
        return True

    def _note_reported(self, ids: Sequence[str]) -> None:
        try:
            if ids:
                self._taken(ids)
        except OSError:
            log.warning("The state can't be written, so these outcomes will be reported again")


def _joined(last: Event, event: Event) -> Event | None:
    """Two pieces of the same text as one event, or None."""
    if last.type != "token" or event.type != "token" or last.message_id != event.message_id:
        return None
    if "again" in last.data or "again" in event.data:
        return None
    text = str(last.data["text"]) + str(event.data["text"])
    return replace(last, data={"text": text}) if len(text) <= TEXT else None
