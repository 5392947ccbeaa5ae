"""How many bytes of others' documents a process holds at a time, whoever sends them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.sessions.errors import RetryableError


class NoRoom(RetryableError):
    """The process holds as many bytes of documents as it may."""

    code = "busy"

    def __init__(self) -> None:
        super().__init__("This process holds as many bytes of requests and answers as it may; try again in a moment.")


class ByteBudget:
    """`most` bytes for all threads of a process."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        return self._left

    @contextmanager
    def account(self) -> Iterator[Account]:
        """What is taken within the block goes back at its end."""
        account = Account(self)
        try:
            yield account
        finally:
            account.close()

    def take(self, count: int) -> None:
        """Raises `NoRoom` where so many are not left, at once."""
        with self._lock:
            if count > self._left:
                raise NoRoom
            self._left -= count

    def give_back(self, count: int) -> None:
        with self._lock:
            self._left += count


class Account:
    """What one request has taken of the budget."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._taken = 0

    def take(self, count: int) -> None:
        """Raises `NoRoom`."""
        self._budget.take(count)
        self._taken += count

    def close(self) -> None:
        """Give all of it back; once is enough."""
        taken, self._taken = self._taken, 0
        self._budget.give_back(taken)
