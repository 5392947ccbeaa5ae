"""How often something may happen for one session: bounds on what a workspace can cost, kept in this process."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict


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


class Places:
    """Bounds how many requests of one name are worked on at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, name: str) -> bool:
        """Take a place; False when all are taken. Who got one gives it back."""
        with self._lock:
            if self._taken[name] >= self._limit:
                return False
            self._taken[name] += 1
            return True

    def give_back(self, name: str) -> None:
        """A place is free again."""
        with self._lock:
            self._taken[name] -= 1
            if self._taken[name] <= 0:
                del self._taken[name]
