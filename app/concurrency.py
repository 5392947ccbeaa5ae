"""Bounds on how many of something are under way at a time in this process, counted by name."""

from __future__ import annotations

import threading
from collections import Counter


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
