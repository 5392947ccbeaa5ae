"""Bounds on how many of something are under way at a time in this process, counted by name."""

from __future__ import annotations

import threading
from collections import Counter

CONNECTIONS = 8_192
"""Connections of a process of web, forward auth or the gateway: a waiting call or a stream holds one, and proxies and
agents keep more open."""


class ConcurrencyLimit:
    """Counts, for each name, how many slots are taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def acquire(self, name: str, most: int) -> bool:
        """Take one of `most` slots; False when all are taken. The caller releases it."""
        with self._lock:
            if self._taken[name] >= most:
                return False
            self._taken[name] += 1
            return True

    def release(self, name: str) -> None:
        with self._lock:
            self._taken[name] -= 1
            if self._taken[name] <= 0:
                del self._taken[name]

    def taken(self, name: str) -> int:
        return self._taken[name]


class Slots:
    """`most` slots for all, of which each name holds one at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._holders: set[str] = set()

    def acquire(self, name: str, seconds: float) -> bool:
        """Take a slot, waiting so long for one; False when none came free, or this name still holds one. The caller
        releases it."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_free(name), seconds):
                return False
            self._holders.add(name)
            return True

    def release(self, name: str) -> None:
        with self._changed:
            self._holders.remove(name)
            self._changed.notify_all()

    def _is_free(self, name: str) -> bool:
        return name not in self._holders and len(self._holders) < self._most
