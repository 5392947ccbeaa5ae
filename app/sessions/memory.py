"""How full Redis is. What is new is refused while only its reserve is left, so that sleeps, deletions, leases and the
queues of tasks go on, by which room is made again.

Scripts that take in sessions and prompts look for themselves (lua/room.lua). What comes too often for that, events and
kept answers, goes by a reading that is a second old at most. Against what asks nobody, as somebody else's data, part of
the reserve is held as ballast, which the watcher gives up in time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from app.sessions import keys
from app.sessions.redis_errors import redis_errors

log = logging.getLogger(__name__)

RESERVE = 0.1
"""The share of `maxmemory` that is not for what is new, unless a setting says otherwise."""

FILLING = 0.7
"""The share from which operators are told: there is still time to look for the cause."""

BALLAST_SHARE = 0.04
"""Of `maxmemory`: what the queues of tasks, leases and heartbeats have when everything else is taken."""

BRIM = 0.97
"""The share at which the ballast is given up: above 1 Redis refuses whatever takes memory."""

READING_KEPT = 1.0
"""s a reading of the fill is good for."""


@dataclass(frozen=True)
class Fill:
    """Bytes `used` of those there may be, `limit`, 0 where Redis has none."""

    used: int
    limit: int
    reserve: float

    @property
    def share(self) -> float | None:
        """From 0 to 1, None without a limit."""
        return self.used / self.limit if self.limit else None

    @property
    def state(self) -> str:
        """`ok`, `filling`, `full` when only the reserve is left, `unlimited`."""
        if self.share is None:
            return "unlimited"
        if self.share > 1 - self.reserve:
            return "full"
        return "filling" if self.share >= FILLING else "ok"


class Memory:
    """Reads the fill of Redis. Raises `StateUnavailable` when Redis can't serve."""

    def __init__(
        self, client: redis.Redis, reserve: float = RESERVE, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = client
        self._reserve = reserve
        self._ticks = ticks
        self._full = False
        self._good_until = float("-inf")

    def read(self) -> Fill:
        """The fill as it is now."""
        with redis_errors():
            said = self._redis.info("memory")
        used = int(said["used_memory"]) - int(said.get("mem_not_counted_for_evict", 0))
        return Fill(used, int(said.get("maxmemory", 0)), self._reserve)

    def full(self) -> bool:
        """Whether only the reserve is left, as it was a second ago at most."""
        if self._ticks() >= self._good_until:
            self._full = self.read().state == "full"
            self._good_until = self._ticks() + READING_KEPT
        return self._full

    def forget(self) -> None:
        """Look anew the next time."""
        self._good_until = float("-inf")

    def trim(self) -> None:
        """Hold the ballast while there is room for it, and give it up when there is nearly none."""
        fill = self.read()
        size = int(fill.limit * BALLAST_SHARE)
        with redis_errors():
            held = self._redis.strlen(keys.BALLAST)
            if held and (fill.share is None or fill.share > BRIM):
                log.warning("Redis is as good as full: its ballast is given up")
                self._redis.delete(keys.BALLAST)
            elif not held and size and fill.used + size < fill.limit * (1 - self._reserve):
                self._redis.setrange(keys.BALLAST, size - 1, b"\0")
