"""Who of the service is alive, what it has counted, and the tasks it gave up on."""

from __future__ import annotations

import bisect
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import redis

from app.sessions import keys
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import script

WORKER_SILENCE = 15.0
"""s: workers report every 2 s; a few reports may be missed under load."""

START_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds (s) of what the phases of starts are counted by; a start in a cluster takes about 1."""

RECENT = 25
"""Starts of a kind by which the next is estimated: enough for one slow one not to count, and few enough that a slower
or quicker cluster shows."""

WATCHER_SILENCE = 10.0
"""s: the watcher reports every second; a silent one means the records may be untrue."""

POLICIES_LOOKED_AT = 60.0
"""s between two looks whether the cluster enforces its NetworkPolicies."""

POLICIES_KNOWN = 300
"""s for which the last look counts; a few may be missed under load."""

DEAD_LETTERS_KEPT = 1_000


class Policies(StrEnum):
    """Whether the cluster enforces its NetworkPolicies."""

    ENFORCED = "enforced"
    NOT_ENFORCED = "not_enforced"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Histogram:
    """How long something took: `counts` by upper bound (`START_BUCKETS`, and one more for all above), `total` s."""

    counts: tuple[int, ...]
    total: float


class Fleet:
    """Heartbeats, counters and dead letters of all processes. Times are seconds since the epoch."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._watched = client.register_script(script("watched"))

    def worker_alive(self, name: str, now: float) -> None:
        with redis_errors():
            pipe = self._redis.pipeline()
            pipe.zadd(keys.WORKERS_SEEN, {name: now})
            pipe.zremrangebyscore(keys.WORKERS_SEEN, "-inf", now - WORKER_SILENCE)
            pipe.execute()

    def workers(self, now: float) -> int:
        """How many workers reported lately."""
        with redis_errors():
            return int(self._redis.zcount(keys.WORKERS_SEEN, now - WORKER_SILENCE, "+inf"))

    def watcher_alive(self, now: float) -> None:
        with redis_errors():
            self._watched(keys=[keys.WATCHER_SEEN, keys.WATCHER_SINCE], args=[f"{now:.3f}", WATCHER_SILENCE])

    def watched_since(self, now: float) -> float | None:
        """Since when the watcher has been looking without a pause, None while it is silent: nothing that was not seen
        in that time can be held against a workspace."""
        with redis_errors():
            seen, since = self._redis.mget(keys.WATCHER_SEEN, keys.WATCHER_SINCE)
        if seen is None or since is None or now - float(seen) > WATCHER_SILENCE:
            return None
        return float(since)

    def watcher_age(self, now: float) -> float | None:
        """Seconds since the watcher last reported, None when it never did."""
        with redis_errors():
            seen = self._redis.get(keys.WATCHER_SEEN)
        return max(0.0, now - float(seen)) if seen else None

    def note_policies(self, found: Policies) -> Policies:
        """Note what a look has found; what the one before had."""
        with redis_errors():
            before = self._redis.set(keys.NETWORK_POLICIES, found, ex=POLICIES_KNOWN, get=True)
        return Policies(before) if before else Policies.UNKNOWN

    def policies(self) -> Policies:
        """What the last look has found."""
        with redis_errors():
            found = self._redis.get(keys.NETWORK_POLICIES)
        return Policies(found) if found else Policies.UNKNOWN

    def count(self, name: str) -> None:
        """Add one to a counter that only grows."""
        with redis_errors():
            self._redis.hincrby(keys.COUNTERS, name, 1)

    def counters(self) -> dict[str, int]:
        with redis_errors():
            return {name: int(value) for name, value in self._redis.hgetall(keys.COUNTERS).items()}

    def started(self, kind: str, phases: Mapping[str, int]) -> None:
        """Count a start of this kind by how many ms after the request each of its phases was over."""
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
        """How many ms the recent starts of this kind took, their median; None where there was none."""
        with redis_errors():
            recent = self._redis.lrange(keys.RECENT_STARTS.format(kind=kind), 0, RECENT - 1)
        return round(statistics.median(map(int, recent))) if recent else None

    def starts(self) -> dict[tuple[str, str], Histogram]:
        """What was counted of all starts, by kind and phase."""
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

    def bury(self, letter: Mapping[str, Any]) -> None:
        """Put a task aside that will not be tried again."""
        with redis_errors():
            pipe = self._redis.pipeline()
            pipe.lpush(keys.DEAD_LETTERS, json.dumps(letter))
            pipe.ltrim(keys.DEAD_LETTERS, 0, DEAD_LETTERS_KEPT - 1)
            pipe.hincrby(keys.COUNTERS, "dead_letters", 1)
            pipe.execute()

    def dead_letters(self) -> list[dict[str, Any]]:
        """The tasks given up on, newest first."""
        with redis_errors():
            return [json.loads(letter) for letter in self._redis.lrange(keys.DEAD_LETTERS, 0, -1)]

    def backlog(self, queues: tuple[str, ...]) -> dict[str, int]:
        """How many tasks wait in each queue."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for queue in queues:
                pipe.llen(queue)
            return dict(zip(queues, (int(n) for n in pipe.execute()), strict=True))

    def ping(self) -> None:
        """Raises `StateUnavailable` when Redis does not answer."""
        with redis_errors():
            self._redis.ping()
