"""Who is refused over and over hears of it later and later: asking in vain is not to cost others their time.

A refusal costs a process some 1.5 ms, most of it for the connection. A client that asks on without pause gets its
answers at a bounded pace; waiting costs a greenlet, as nginx does it with `limit_req` and `burst`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from flask import Flask, Response

from app.bodies import forget_body
from app.places import Places

PACE = 10.0
"""Refusals a second that a caller hears from a process."""

BURST = 20
"""Refusals at once that are not held back."""

LONGEST = 5.0
"""s that a refusal is held back; who gives one a `Retry-After` of as much says the same in words."""

SHARE = 1 / 8
"""Of a process's connections that may be those of clients whose refusals are held back; others hear at once."""

CALLERS = 10_000
"""Callers that are remembered; a new one above that is answered at once."""


class Tarpit:
    """How long the next refusal of each caller waits, and the waiting."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self.sleep = sleep
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}

    def delay(self, whose: str) -> float:
        """Count a refusal of this caller; s until it is to hear of it."""
        now, ahead = self._clock(), BURST / PACE
        with self._lock:
            if whose not in self._due and len(self._due) >= CALLERS:
                self._due = {name: due for name, due in self._due.items() if due > now - ahead}
                if len(self._due) >= CALLERS:
                    return 0.0
            due = max(self._due.get(whose, -math.inf), now - ahead) + 1 / PACE
            self._due[whose] = min(due, now + LONGEST)
            return max(0.0, round(self._due[whose] - now, 3))


def register_tarpit(app: Flask, whose: Callable[[], str], connections: int, tarpit: Tarpit | None = None) -> None:
    """Hold back what refuses a request of `whose()`, "" for one whose refusals are never held back; with so many
    `connections`, `SHARE` of them at a time. Register it before the hooks that give back what a request holds."""
    pit, held, most = tarpit or Tarpit(), Places(), int(SHARE * connections)

    def hold_back(response: Response) -> Response:
        if 400 <= response.status_code < 500 and (name := whose()):
            seconds = pit.delay(name)
            if seconds and held.take("", most):
                forget_body()
                try:
                    pit.sleep(seconds)
                finally:
                    held.give_back("")
        return response

    app.after_request(hold_back)
