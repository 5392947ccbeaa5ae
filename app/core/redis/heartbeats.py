"""Heartbeats of the service's processes, and whether the cluster enforces its NetworkPolicies."""

from __future__ import annotations

from enum import StrEnum

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.scripts import Script

WORKER_SILENCE = 15.0
"""s: workers report every 2 s; a few reports may be missed under load."""

OBSERVER_SILENCE = 10.0
"""s: the observer reports every second; while it is silent the records may be wrong."""

POLICIES_LOOKED_AT = 60.0
"""s between two checks whether the cluster enforces its NetworkPolicies."""

POLICIES_KNOWN = 300
"""s a check counts; a few may be missed under load."""


class Policies(StrEnum):
    """Whether the cluster enforces its NetworkPolicies."""

    ENFORCED = "enforced"
    NOT_ENFORCED = "not_enforced"
    UNKNOWN = "unknown"


class Heartbeats:
    """Heartbeats of the workers and the observer. Times are seconds since the epoch; every method raises
    `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._observed = Script(client, "observed")

    @redis_errors
    def ping(self) -> None:
        """Raises `StateUnavailable` when Redis does not answer."""
        self._redis.ping()

    @redis_errors
    def worker_alive(self, name: str, now: float) -> None:
        pipe = self._redis.pipeline()
        pipe.zadd(keys.WORKERS_SEEN, {name: now})
        pipe.zremrangebyscore(keys.WORKERS_SEEN, "-inf", now - WORKER_SILENCE)
        pipe.execute()

    @redis_errors
    def workers(self, now: float) -> int:
        """The number of live workers."""
        return int(self._redis.zcount(keys.WORKERS_SEEN, now - WORKER_SILENCE, "+inf"))

    @redis_errors
    def observer_alive(self, now: float) -> None:
        self._observed(seen=keys.OBSERVER_SEEN, since=keys.OBSERVER_SINCE, now=f"{now:.3f}", silence=OBSERVER_SILENCE)

    @redis_errors
    def observed_since(self, now: float) -> float | None:
        """Since when the observer has watched without a pause, None while it is silent. What it missed before that must
        not count against a workspace."""
        seen, since = self._redis.mget(keys.OBSERVER_SEEN, keys.OBSERVER_SINCE)
        if seen is None or since is None or now - float(seen) > OBSERVER_SILENCE:
            return None
        return float(since)

    @redis_errors
    def observer_age(self, now: float) -> float | None:
        """Seconds since the observer last reported, None when it never did."""
        seen = self._redis.get(keys.OBSERVER_SEEN)
        return max(0.0, now - float(seen)) if seen else None

    @redis_errors
    def note_policies(self, found: Policies) -> Policies:
        """Note the result of a check; answers the one before."""
        before = self._redis.set(keys.NETWORK_POLICIES, found, ex=POLICIES_KNOWN, get=True)
        return Policies(before) if before else Policies.UNKNOWN

    @redis_errors
    def policies(self) -> Policies:
        """The result of the last check."""
        found = self._redis.get(keys.NETWORK_POLICIES)
        return Policies(found) if found else Policies.UNKNOWN
