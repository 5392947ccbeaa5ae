"""Counters of the service: events, and how long starts, other actions and prompts take."""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.task_queue import enqueued_at

COUNTED: Mapping[str, str] = {
    "starts": "Sessions that became active",
    "sleeps": "Sessions that were put to sleep",
    "backups": "Backups that were made",
    "teardowns": "Sessions that were deleted",
    "sessions_failed": "Sessions that failed",
    "backups_failed": "Requested backups that failed",
    "points_made": "Restore points that were made",
    "points_unchanged": "Restore points that were asked for although nothing had changed",
    "points_failed": "Attempts at a restore point that failed; each is repeated",
    "points_broken": "Restore points of which a check found data missing",
    "points_stored_bytes": "Bytes that restore points added to the store",
    "drills_proven": "Drills that restored a restore point and found each file as it was",
    "drills_failed": "Drills that found a restore point broken",
    "drills_put_off": "Drills that could not be made; each is repeated",
    "rollbacks": "Rollbacks to a restore point that were done",
    "rollbacks_failed": "Rollbacks that were called off; the session went on with the files it had",
    "volumes_lost": "Volumes that were gone, of which a copy was there",
    "volumes_restored": "Lost volumes whose files were restored",
    "archived": "Sessions that were archived",
    "unarchived": "Archived sessions whose files were restored",
    "archives_failed": "Sessions that could not be archived and kept their volume",
}
"""The counters by name, with their texts. `/metrics` shows each as `sessions_{name}_total`, from 0 on: a rate needs a
value from before the first event."""

START_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds (s) of the histogram of start phases; a start in a cluster takes about 1."""

ACTION_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""Upper bounds (s) for sleeps, backups and deletions: from a sleep without an agent to the longest backup allowed."""

PROMPT_BUCKETS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0)
"""Upper bounds (s) for prompts: a turn ends after 900 (AGENT_TURN_TIMEOUT), and a wake may come before it."""

ANSWERED, FIRST_TOKEN = "answered", "first_token"
"""What is measured of a prompt, each since it was stored: its answer's end and first token."""

PROMPT_FAILED = "failed:"
"""Begins the fields that count failed prompts, by why (the script `finish`)."""

FAILED = ":failed"
"""Ends the field that counts an action's failures."""

SEEN_AT = "at"
"""The field with the time of the last look at the queues; no queue has this name."""

RECENT = 25
"""Recent starts of a kind from which the next is estimated: enough to ignore one slow start, few enough to follow a
change in the cluster's speed."""


@dataclass(frozen=True)
class Histogram:
    """Durations: `counts` by upper bound (`bounds`, and one more for all above), `total` in s."""

    counts: tuple[int, ...]
    total: float
    bounds: tuple[float, ...] = START_BUCKETS


class Counters:
    """Counters of all processes, which only grow. Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    @redis_errors
    def count(self, name: str, more: int = 1) -> None:
        """Add to a counter of `COUNTED`."""
        self._redis.hincrby(keys.COUNTERS, name, more)

    @redis_errors
    def read(self) -> dict[str, int]:
        return {name: int(value) for name, value in self._redis.hgetall(keys.COUNTERS).items()}

    @redis_errors
    def started(self, kind: str, phases: Mapping[str, int]) -> None:
        """Count a start of this kind; `phases` are the ms from the request to the end of each phase."""
        pipe = self._redis.pipeline(transaction=False)
        for phase, ms in phases.items():
            _observe(pipe, keys.STARTS, f"{kind}:{phase}", ms, START_BUCKETS)
        if phases:
            recent = keys.RECENT_STARTS.format(kind=kind)
            pipe.lpush(recent, max(phases.values()))
            pipe.ltrim(recent, 0, RECENT - 1)
        pipe.execute()

    @redis_errors
    def usual_start(self, kind: str) -> int | None:
        """The median duration (ms) of the recent starts of this kind, None without any."""
        recent = self._redis.lrange(keys.RECENT_STARTS.format(kind=kind), 0, RECENT - 1)
        return round(statistics.median(map(int, recent))) if recent else None

    @redis_errors
    def starts(self) -> dict[tuple[str, str], Histogram]:
        """The durations of all starts, by kind and phase."""
        return _by_pair(_histograms(self._redis.hgetall(keys.STARTS), START_BUCKETS))

    @redis_errors
    def acted(self, action: str, phases: Mapping[str, int]) -> None:
        """Count the end of a sleep, backup or deletion; `phases` are the ms from the request to the end of each."""
        pipe = self._redis.pipeline(transaction=False)
        for phase, ms in phases.items():
            _observe(pipe, keys.ACTIONS, f"{action}:{phase}", ms, ACTION_BUCKETS)
        pipe.execute()

    @redis_errors
    def action_failed(self, action: str) -> None:
        """Count a failed action of any kind."""
        self._redis.hincrby(keys.ACTIONS, f"{action}{FAILED}", 1)

    @redis_errors
    def failed_because(self, reason: str) -> None:
        """Count a failure of a session or a backup by its reason, one of a few dozen words."""
        self._redis.hincrby(keys.FAILURES, reason, 1)

    @redis_errors
    def failures_by_reason(self) -> dict[str, int]:
        return {reason: int(count) for reason, count in self._redis.hgetall(keys.FAILURES).items()}

    @redis_errors
    def actions(self) -> tuple[dict[tuple[str, str], Histogram], dict[str, int]]:
        """The durations of the actions, by action and phase, and the number of failed ones, by action."""
        counted = self._redis.hgetall(keys.ACTIONS)
        failed = {name: int(counted.pop(name)) for name in list(counted) if name.endswith(FAILED)}
        durations = _by_pair(_histograms(counted, ACTION_BUCKETS))
        return durations, {name.removesuffix(FAILED): count for name, count in sorted(failed.items())}

    @redis_errors
    def prompts(self) -> tuple[dict[str, Histogram], dict[str, int]]:
        """The durations of prompts (`ANSWERED`, `FIRST_TOKEN`), which scripts count, and the number of failed
        ones, by the code of why."""
        counted = self._redis.hgetall(keys.PROMPT_TIMES)
        failed = {name: int(counted.pop(name)) for name in list(counted) if name.startswith(PROMPT_FAILED)}
        measured = _histograms(counted, PROMPT_BUCKETS)
        nothing = Histogram((0,) * (len(PROMPT_BUCKETS) + 1), 0.0, PROMPT_BUCKETS)
        durations = {name: measured.get(name, nothing) for name in (ANSWERED, FIRST_TOKEN)}
        return durations, {name.removeprefix(PROMPT_FAILED): count for name, count in sorted(failed.items())}

    @redis_errors
    def backlog(self, queues: tuple[str, ...]) -> dict[str, int]:
        """The number of tasks waiting in each queue."""
        pipe = self._redis.pipeline(transaction=False)
        for queue in queues:
            pipe.llen(queue)
        return dict(zip(queues, (int(n) for n in pipe.execute()), strict=True))

    @redis_errors
    def look_at_queues(self, queues: tuple[str, ...], now: float) -> None:
        """Note since when the oldest task of each queue waits. For the sweep: web may not read the messages."""
        pipe = self._redis.pipeline(transaction=False)
        for queue in queues:
            # Messages are added at the other end.
            pipe.lrange(queue, -1, -1)
        found = zip(queues, pipe.execute(), strict=True)
        since = {queue: str(enqueued_at(last[0], now)) if last else "" for queue, last in found}
        self._redis.hset(keys.QUEUES_SEEN, mapping={**since, SEEN_AT: str(now)})

    @redis_errors
    def looked_at_queues(self) -> float | None:
        """When a sweep last looked (s since the epoch), None if none ever did."""
        looked = self._redis.hget(keys.QUEUES_SEEN, SEEN_AT)
        return float(looked) if looked else None

    @redis_errors
    def oldest(self, queues: tuple[str, ...], now: float) -> dict[str, float]:
        """How long (s) the oldest task of each queue has waited, 0 for an empty queue. A task that came after the last
        look counts from that look: it waits for less long, and by a second only while sweeps run."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hgetall(keys.QUEUES_SEEN)
        for queue in queues:
            pipe.llen(queue)
        seen, *lengths = pipe.execute()
        looked = float(seen.get(SEEN_AT) or now)
        return {
            queue: max(0.0, now - float(seen.get(queue) or looked)) if length else 0.0
            for queue, length in zip(queues, lengths, strict=True)
        }


def _observe(pipe: redis.client.Pipeline, key: str, name: str, ms: int, bounds: tuple[float, ...]) -> None:
    """Count a duration in a hash, as the scripts do (the part `durations` of lua/prompts.lua)."""
    pipe.hincrby(key, f"{name}:{bisect.bisect_left(bounds, ms / 1000)}", 1)
    pipe.hincrby(key, f"{name}:ms", ms)


def _histograms(counted: Mapping[str, str], bounds: tuple[float, ...]) -> dict[str, Histogram]:
    """The histograms in such a hash, by name."""
    return {
        name: Histogram(
            tuple(int(counted.get(f"{name}:{bucket}", 0)) for bucket in range(len(bounds) + 1)),
            int(counted.get(f"{name}:ms", 0)) / 1000,
            bounds,
        )
        for name in sorted({field.rpartition(":")[0] for field in counted})
    }


def _by_pair(histograms: Mapping[str, Histogram]) -> dict[tuple[str, str], Histogram]:
    """The same by the two parts of their names."""
    return {(first, second): each for name, each in histograms.items() for first, _, second in [name.partition(":")]}
