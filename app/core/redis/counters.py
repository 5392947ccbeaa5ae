"""Counters of the service: events, and how long starts take."""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors

START_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds (s) of the histogram of start phases; a start in a cluster takes about 1."""

RECENT = 25
"""Recent starts of a kind from which the next is estimated: enough to ignore one slow start, few enough to follow a
change in the cluster's speed."""


@dataclass(frozen=True)
class Histogram:
    """Durations: `counts` by upper bound (`START_BUCKETS`, and one more for all above), `total` in s."""

    counts: tuple[int, ...]
    total: float


class Counters:
    """Counters of all processes, which only grow. Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def count(self, name: str) -> None:
        """Add one to a counter."""
        with redis_errors():
            self._redis.hincrby(keys.COUNTERS, name, 1)

    def read(self) -> dict[str, int]:
        with redis_errors():
            return {name: int(value) for name, value in self._redis.hgetall(keys.COUNTERS).items()}

    def started(self, kind: str, phases: Mapping[str, int]) -> None:
        """Count a start of this kind; `phases` are the ms from the request to the end of each phase."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for phase, ms in phases.items():
                bucket = bisect.bisect_left(START_BUCKETS, ms / 1000)
                pipe.hincrby(keys.STARTS, f"{kind}:{phase}:{bucket}", 1)
                pipe.hincrby(keys.STARTS, f"{kind}:{phase}:ms", ms)
            if phases:
                recent = keys.RECENT_STARTS.format(kind=kind)
                pipe.lpush(recent, max(phases.values()))
                pipe.ltrim(recent, 0, RECENT - 1)
            pipe.execute()

    def usual_start(self, kind: str) -> int | None:
        """The median duration (ms) of the recent starts of this kind, None without any."""
        with redis_errors():
            recent = self._redis.lrange(keys.RECENT_STARTS.format(kind=kind), 0, RECENT - 1)
        return round(statistics.median(map(int, recent))) if recent else None

    def starts(self) -> dict[tuple[str, str], Histogram]:
        """The durations of all starts, by kind and phase."""
        with redis_errors():
            counted = self._redis.hgetall(keys.STARTS)
        found = {(kind, phase) for kind, phase, _ in (name.split(":") for name in counted)}
        return {
            (kind, phase): Histogram(
                tuple(int(counted.get(f"{kind}:{phase}:{bucket}", 0)) for bucket in range(len(START_BUCKETS) + 1)),
                int(counted.get(f"{kind}:{phase}:ms", 0)) / 1000,
            )
            for kind, phase in sorted(found)
        }

    def backlog(self, queues: tuple[str, ...]) -> dict[str, int]:
        """The number of tasks waiting in each queue."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for queue in queues:
                pipe.llen(queue)
            return dict(zip(queues, (int(n) for n in pipe.execute()), strict=True))
