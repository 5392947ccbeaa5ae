"""A limit on the bytes of requests and responses that a process holds at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.core.limit_errors import NoRoom


class ByteBudget:
    """`most` bytes for all threads of a process."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        return self._left

    @contextmanager
    def account(self) -> Iterator[Account]:
        """An account whose bytes go back at the end of the block."""
        account = Account(self)
        try:
            yield account
        finally:
            account.close()

    def take(self, count: int) -> None:
        """Raises `NoRoom` at once where fewer are left."""
        with self._lock:
            if count > self._left:
                raise NoRoom(self._most)
            self._left -= count

    def give_back(self, count: int) -> None:
        with self._lock:
            self._left += count


class Account:
    """The bytes one request has taken of the budget."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._taken = 0

    def take(self, count: int) -> None:
        """Raises `NoRoom`."""
        self._budget.take(count)
        self._taken += count

    def close(self) -> None:
        """Give all bytes back. May be called twice."""
        taken, self._taken = self._taken, 0
        self._budget.give_back(taken)
