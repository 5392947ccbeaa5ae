"""How often something may happen for one session: bounds on what a workspace can cost, kept in this process."""

from __future__ import annotations

import threading
from collections import OrderedDict


class Pace:
    """Says when `interval` seconds have passed for a name since it last said so. It remembers so many names
    at most; one that was forgotten may come early."""

    def __init__(self, interval: float, names: int = 10_000) -> None:
        self._interval = interval
        self._most = names
        self._lock = threading.Lock()
        self._last: OrderedDict[str, float] = OrderedDict()

    def due(self, name: str, now: float) -> bool:
        """Whether it is time again for this name; `now` is monotonic, in seconds."""
        with self._lock:
            last = self._last.get(name)
            if last is not None and now - last < self._interval:
                return False
            self._last[name] = now
            self._last.move_to_end(name)
            while len(self._last) > self._most:
                self._last.popitem(last=False)
            return True
