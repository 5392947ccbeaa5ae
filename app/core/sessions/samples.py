"""Samples of the service for charts: one a minute for a day, one an hour for 30 days.

Two lists of short texts, oldest first, some 500 KB at most; and what the counters stood at when the last sample was
taken, since a sample has what happened since then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.scripts import Script
from app.core.sessions.model import Status

MINUTE, HOUR = 60, 3_600
MINUTES_KEPT, HOURS_KEPT = 24 * 60, 30 * 24

Counts = Mapping[str, int]
Buckets = tuple[int, ...]
"""How many starts took how long, by the bounds of counters.START_BUCKETS, and one more for all above."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The state `at` a time (s since the epoch), and what happened since the sample before: starts of the kinds `wake`
    and `create`, dollars, failures by reason. `queues` are waiting tasks. Zeros are left out of mappings."""

    at: int
    sessions: Counts = field(default_factory=dict)
    wakes: Buckets = ()
    creates: Buckets = ()
    cost: float = 0.0
    saved: float = 0.0
    failures: Counts = field(default_factory=dict)
    queues: Counts = field(default_factory=dict)
    dead_letters: int = 0

    def to_text(self) -> str:
        """A short text: states by their place, buckets by their number."""
        sessions = [self.sessions.get(status, 0) for status in Status]
        buckets = [
            {str(number): count for number, count in enumerate(each) if count} for each in (self.wakes, self.creates)
        ]
        dollars = [round(self.cost, 6), round(self.saved, 6)]
        told = [self.at, sessions, *buckets, *dollars, self.failures, self.queues, self.dead_letters]
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str, buckets: int) -> Sample:
        """The sample in such a text; starts have so many `buckets`."""
        at, sessions, wakes, creates, cost, saved, failures, queues, dead = json.loads(text)
        return cls(
            at=at,
            sessions={status: count for status, count in zip(Status, sessions, strict=False) if count},
            wakes=_buckets(wakes, buckets),
            creates=_buckets(creates, buckets),
            cost=cost,
            saved=saved,
            failures=failures,
            queues=queues,
            dead_letters=dead,
        )


@dataclass(frozen=True)
class Last:
    """What was noted with the last sample: when it was taken, and the counters. `text` identifies it, "" for none."""

    text: str
    at: int = 0
    counted: Mapping[str, Any] = field(default_factory=dict)


class Samples:
    """Every method raises `StateUnavailable`. Starts have `buckets` each."""

    def __init__(self, client: redis.Redis, buckets: int) -> None:
        self._redis = client
        self._buckets = buckets
        self._add = Script(client, "sample")

    @redis_errors
    def last(self) -> Last:
        """What was noted with the last sample."""
        text = self._redis.get(keys.SAMPLED) or ""
        told = json.loads(text or "{}")
        return Last(text, int(told.get("at", 0)), told)

    @redis_errors
    def add(self, last: Last, counted: Mapping[str, Any], sample: Sample, hour: Sample | None = None) -> bool:
        """Add a sample, and one of the whole hour before, with what the counters stand at; False if another process
        has added one since `last`."""
        added = self._add(
            sampled=keys.SAMPLED,
            minutes=keys.MINUTES,
            hours=keys.HOURS,
            last=last.text,
            note=json.dumps({**counted, "at": sample.at}),
            of_minute=sample.to_text(),
            minutes_kept=MINUTES_KEPT,
            of_hour=hour.to_text() if hour else "",
            hours_kept=HOURS_KEPT,
        )
        return bool(added)

    def minutes(self, count: int = MINUTES_KEPT) -> list[Sample]:
        """The newest samples of minutes, oldest first."""
        return self._read(keys.MINUTES, count)

    def hours(self, count: int = HOURS_KEPT) -> list[Sample]:
        """The newest samples of hours, oldest first."""
        return self._read(keys.HOURS, count)

    @redis_errors
    def _read(self, key: str, count: int) -> list[Sample]:
        texts: Sequence[str] = self._redis.lrange(key, -count, -1)
        return [Sample.from_text(text, self._buckets) for text in texts]


def _buckets(told: Mapping[str, int], buckets: int) -> Buckets:
    return tuple(int(told.get(str(number), 0)) for number in range(buckets))
