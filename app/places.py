"""How much of something is held at a time in each name, bounded, in this process."""

from __future__ import annotations

import threading
from collections import Counter


class Places:
    """Bounds how many of one name there are at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, name: str, most: int) -> bool:
        """Take one of `most` places; False when all are taken. Who got one gives it back."""
        with self._lock:
            if self._taken[name] >= most:
                return False
            self._taken[name] += 1
            return True

    def give_back(self, name: str) -> None:
        """A place is free again."""
        with self._lock:
            self._taken[name] -= 1
            if self._taken[name] <= 0:
                del self._taken[name]

    def taken(self, name: str) -> int:
        """How many places are taken in that name."""
        return self._taken[name]
