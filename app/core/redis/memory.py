"""How full Redis is. While only its reserve is left, new sessions and prompts are refused, so that sleeps, deletions,
leases and task queues go on and free memory.

Scripts that store sessions and prompts check for themselves (their part `room`). Events and kept answers, too frequent
for that, go by a reading at most a second old. Other data in the same Redis is not checked: against it, part of the
reserve is held as ballast, which the observer frees in time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors

log = logging.getLogger(__name__)

RESERVE = 0.1
"""The share of `maxmemory` that new sessions and prompts may not use, so that sleeps and deletions work when Redis is
full."""

FILLING = 0.7
"""The share from which operators are warned, while there is time to find the cause."""

BALLAST_SHARE = 0.04
"""Share of `maxmemory`: for task queues, leases and heartbeats when all other memory is used."""

BRIM = 0.97
"""The share at which the ballast is freed: at 1 Redis refuses every write that takes memory."""

READING_KEPT = 1.0
"""s a reading of the fill is valid."""


@dataclass(frozen=True)
class Fill:
    """Bytes `used` of the `limit`, which is 0 where Redis has none."""

    used: int
    limit: int

    @property
    def share(self) -> float | None:
        """From 0 to 1, None without a limit."""
        return self.used / self.limit if self.limit else None

    @property
    def state(self) -> str:
        """`ok`, `filling`, `full` when only the reserve is left, `unlimited`."""
        if self.share is None:
            return "unlimited"
        if self.share > 1 - RESERVE:
            return "full"
        return "filling" if self.share >= FILLING else "ok"


class Memory:
    """Reads the fill of Redis. Raises `StateUnavailable` when Redis can't serve."""

    def __init__(self, client: redis.Redis, ticks: Callable[[], float] = time.monotonic) -> None:
        self._redis = client
        self._ticks = ticks
        self._full = False
        self._good_until = float("-inf")

    @redis_errors
    def read(self) -> Fill:
        """The current fill."""
        said = self._redis.info("memory")
        used = int(said["used_memory"]) - int(said.get("mem_not_counted_for_evict", 0))
        return Fill(used, int(said.get("maxmemory", 0)))

    def full(self) -> bool:
        """Whether only the reserve is left, by a reading at most a second old."""
        if self._ticks() >= self._good_until:
            self._full = self.read().state == "full"
            self._good_until = self._ticks() + READING_KEPT
        return self._full

    def invalidate(self) -> None:
        """Make the next `full` read anew."""
        self._good_until = float("-inf")

    @redis_errors
    def adjust_ballast(self) -> None:
        """Hold the ballast while there is room for it, and free it when Redis is nearly full."""
        fill = self.read()
        size = int(fill.limit * BALLAST_SHARE)
        held = self._redis.strlen(keys.BALLAST)
        if held and (fill.share is None or fill.share > BRIM):
            log.warning("Redis is nearly full: its ballast is freed")
            self._redis.delete(keys.BALLAST)
        elif not held and size and fill.used + size < fill.limit * (1 - RESERVE):
            self._redis.setrange(keys.BALLAST, size - 1, b"\0")
