"""Which paths of a workspace changed, and in which order."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MOST = 10_000
"""Paths remembered: of more changes at once a caller is told to look anew."""


class Change(NamedTuple):
    """Something changed at `path`; or a folder left it with all in it (`moved`). `number` grows."""

    path: str
    number: int
    moved: bool


class Journal:
    """The paths that changed, each at its last change; what was `moved` stands for itself, as what is there now came
    later. Thread-safe. Each has another `name`."""

    def __init__(self, most: int = MOST) -> None:
        self.name = secrets.token_hex(8)
        self._most = most
        self._news = threading.Condition()
        self._changes: OrderedDict[tuple[str, bool], Change] = OrderedDict()
        self._last = 0
        self._forgotten = 0
        self._over = False

    @property
    def last(self) -> int:
        """The number of the last change, 0 without one."""
        return self._last

    @property
    def over(self) -> bool:
        return self._over

    def note(self, path: str, *, moved: bool = False) -> None:
        """Note a change, which those who wait hear of at the next `announce`."""
        with self._news:
            self._last += 1
            self._changes[path, moved] = Change(path, self._last, moved)
            self._changes.move_to_end((path, moved))
            if len(self._changes) > self._most:
                self._forgotten = self._changes.popitem(last=False)[1].number

    def announce(self) -> None:
        """Wake those who wait."""
        with self._news:
            self._news.notify_all()

    def end(self) -> None:
        """No change is noted any more."""
        with self._news:
            self._over = True
            self._news.notify_all()

    def since(self, number: int) -> Sequence[Change] | None:
        """The changes after that one; None if some of them are not remembered, or it has not been yet."""
        with self._news:
            if self._over or not self._forgotten <= number <= self._last:
                return None
            return list(self._after(number))[::-1]

    def wait(self, number: int, seconds: float) -> None:
        """Wait until there is a change after that one, or none comes any more, for so many seconds at most."""
        deadline = time.monotonic() + seconds
        with self._news:
            while not self._over and self._last <= number and (left := deadline - time.monotonic()) > 0:
                self._news.wait(left)

    def _after(self, number: int) -> Iterator[Change]:
        for change in reversed(self._changes.values()):
            if change.number <= number:
                return
            yield change
