"""Delays refusals of clients that are refused again and again, so that they don't cost other clients time.

A refusal costs a process some 1.5 ms, most of it for the connection. A client that asks on without pause gets its
answers at a bounded rate; a delayed answer costs a greenlet. nginx does the same with `limit_req` and `burst`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from flask import Flask, Response

from app.http.bodies import forget_body
from app.http.concurrency import CONNECTIONS, ConcurrencyLimit

RATE = 10.0
"""Refusals a second that a process sends to one caller."""

BURST = 20
"""Refusals at once that are not delayed."""

LONGEST = 5.0
"""s that a refusal is delayed at most."""

SHARE = 1 / 8
"""The share of a process's connections that may wait for a delayed refusal; further refusals are sent at once."""

CALLERS = 10_000
"""Callers that are remembered; a new one above that is refused at once."""


class Tarpit:
    """Says how long the next refusal of each caller is delayed."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self.sleep = sleep
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}

    def delay(self, whose: str) -> float:
        """Count a refusal of this caller; returns its delay in s."""
        now, ahead = self._clock(), BURST / RATE
        with self._lock:
            if whose not in self._due and len(self._due) >= CALLERS:
                self._due = {name: due for name, due in self._due.items() if due > now - ahead}
                if len(self._due) >= CALLERS:
                    return 0.0
            due = max(self._due.get(whose, -math.inf), now - ahead) + 1 / RATE
            self._due[whose] = min(due, now + LONGEST)
            return max(0.0, round(self._due[whose] - now, 3))


def register_tarpit(
    app: Flask, whose: Callable[[], str], connections: int = CONNECTIONS, tarpit: Tarpit | None = None
) -> None:
    """Delay refusals of the caller `whose()`, "" for one whose refusals are never delayed; at most `SHARE` of the
    process's `connections` wait at a time. Register it before the hooks that release what a request holds."""
    pit, delayed, most = tarpit or Tarpit(), ConcurrencyLimit(), int(SHARE * connections)

    def delay(response: Response) -> Response:
        if 400 <= response.status_code < 500 and (name := whose()):
            seconds = pit.delay(name)
            if seconds and delayed.acquire("", most):
                forget_body()
                try:
                    pit.sleep(seconds)
                finally:
                    delayed.release("")
        return response

    app.after_request(delay)
