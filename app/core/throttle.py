"""Limits how often something happens for one session, counted in this process."""

from __future__ import annotations

import threading
from collections import OrderedDict


class Throttle:
    """Allows something once in `interval` seconds for each name. It remembers the last `names` names; a forgotten name
    may be allowed early."""

    def __init__(self, interval: float, names: int = 10_000) -> None:
        self._interval = interval
        self._most = names
        self._lock = threading.Lock()
        self._last: OrderedDict[str, float] = OrderedDict()

    def due(self, name: str, now: float) -> bool:
        """Whether `interval` has passed for this name; if so, it starts anew. `now` is monotonic, in seconds."""
        with self._lock:
            last = self._last.get(name)
            if last is not None and now - last < self._interval:
                return False
            self._last[name] = now
            self._last.move_to_end(name)
            while len(self._last) > self._most:
                self._last.popitem(last=False)
            return True
