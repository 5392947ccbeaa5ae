"""Samples the service once a minute for an operator's charts, and sums minutes up to hours.

The sweep takes a sample with the first sweep of a minute. Of two sweepers that try at once, the script lets one add it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from app.core.composition import Core
from app.core.redis.counters import START_BUCKETS, Histogram
from app.core.redis.task_queue import QUEUES
from app.core.sessions.samples import HOUR, MINUTE, MINUTES_KEPT, Buckets, Counts, Last, Sample

READY = "ready"
"""The last phase of a start."""

MOST_REASONS = 40
"""Reasons of failures in a sample: there are some twenty."""

BACK = 2 * MINUTE
"""s by which the last sample may lie ahead: further, and the clock was put back, so that its counters don't count."""


@dataclass(frozen=True)
class Counted:
    """What the counters, which only grow, stand at."""

    wakes: Buckets = ()
    creates: Buckets = ()
    cost: float = 0.0
    saved: float = 0.0
    failures: Counts = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "wakes": list(self.wakes), "creates": list(self.creates)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Counted:
        known = {name: told[name] for name in cls.__dataclass_fields__ if name in told}
        return cls(**{**known, **{name: tuple(known.get(name, ())) for name in ("wakes", "creates")}})


@dataclass(frozen=True)
class Present:
    """The state of the service, which is no sum."""

    sessions: Counts
    queues: Counts
    dead_letters: int


class Sampler:
    """Takes the samples of this process."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._taken = -1

    def sample(self, now: float) -> None:
        """Take a sample if none was taken in this minute. Raises `StateUnavailable`."""
        at = int(now) // MINUTE * MINUTE
        if at == self._taken:
            return
        last = self._core.samples.last()
        if not at <= last.at <= at + BACK:
            counted, present = _counted(self._core, now), _present(self._core)
            before = Counted.from_json(last.counted) if 0 < last.at < at else None
            self._core.samples.add(last, counted.to_json(), made(at, before, counted, present), self._hour(last, at))
        self._taken = at

    def _hour(self, last: Last, at: int) -> Sample | None:
        """The sample of the hour that ended since the last sample, None if none did."""
        begun = last.at // HOUR * HOUR
        if not 0 < last.at < at // HOUR * HOUR:
            return None
        return merged(begun, [each for each in self._core.samples.minutes(HOUR // MINUTE) if each.at >= begun])


def made(at: int, before: Counted | None, after: Counted, present: Present) -> Sample:
    """A sample of what happened between two readings; of nothing without the first."""
    before = before or after
    failures = Counter(dict(after.failures))
    failures.subtract(dict(before.failures))
    return Sample(
        at=at,
        sessions=_without_zeros(present.sessions),
        wakes=_since(before.wakes, after.wakes),
        creates=_since(before.creates, after.creates),
        cost=max(0.0, after.cost - before.cost),
        saved=max(0.0, after.saved - before.saved),
        failures=dict((+failures).most_common(MOST_REASONS)),
        queues=_without_zeros(present.queues),
        dead_letters=present.dead_letters,
    )


def merged(at: int, samples: Sequence[Sample]) -> Sample | None:
    """One sample of many: sums of what happened, means of the sessions, the longest queues. None for none."""
    if not samples:
        return None
    sessions: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    queues: Counter[str] = Counter()
    for each in samples:
        sessions.update(each.sessions)
        failures.update(each.failures)
        queues |= Counter(each.queues)
    return Sample(
        at=at,
        sessions=_without_zeros({name: round(total / len(samples)) for name, total in sessions.items()}),
        wakes=_sum([each.wakes for each in samples]),
        creates=_sum([each.creates for each in samples]),
        cost=sum(each.cost for each in samples),
        saved=sum(each.saved for each in samples),
        failures=dict(failures.most_common(MOST_REASONS)),
        queues=dict(queues),
        dead_letters=max(each.dead_letters for each in samples),
    )


def history(core: Core, hours: int, now: float) -> tuple[list[Sample], int]:
    """The samples of the last `hours`, oldest first, and the s between two: a minute's for a day, else an hour's."""
    whole_day = hours * HOUR // MINUTE <= MINUTES_KEPT
    found = core.samples.minutes(hours * HOUR // MINUTE) if whole_day else core.samples.hours(hours)
    return [each for each in found if now - hours * HOUR <= each.at <= now], MINUTE if whole_day else HOUR


def quantile(buckets: Buckets, share: float) -> int | None:
    """The duration (ms) that this share of the starts stayed below, None without any: within a bucket they are taken
    to be evenly spread, and those above the last bound to have taken that long."""
    total = sum(buckets)
    if not total:
        return None
    wanted, below = share * total, 0
    bounds = [0.0, *START_BUCKETS]
    for number, upto in enumerate(accumulate(buckets)):
        if upto >= wanted and buckets[number]:
            if number >= len(START_BUCKETS):
                break
            low, high = bounds[number], bounds[number + 1]
            return round(1000 * (low + (high - low) * (wanted - below) / buckets[number]))
        below = upto
    return round(1000 * START_BUCKETS[-1])


def _counted(core: Core, now: float) -> Counted:
    starts, totals = core.counters.starts(), core.ledger.totals(now)
    return Counted(
        wakes=_ready(starts, "wake"),
        creates=_ready(starts, "create"),
        cost=sum(totals.dollars.values()),
        saved=totals.saved,
        failures=core.counters.failures_by_reason(),
    )


def _present(core: Core) -> Present:
    sessions = {str(status): count for status, count in core.store.counts().items()}
    return Present(sessions, core.counters.backlog(QUEUES), core.dead_letters.count())


def _ready(starts: Mapping[tuple[str, str], Histogram], kind: str) -> Buckets:
    found = starts.get((kind, READY))
    return found.counts if found else (0,) * (len(START_BUCKETS) + 1)


def _since(before: Buckets, after: Buckets) -> Buckets:
    if len(before) != len(after):
        return (0,) * len(after)
    return tuple(max(0, now - then) for then, now in zip(before, after, strict=True))


def _sum(buckets: Sequence[Buckets]) -> Buckets:
    return tuple(map(sum, zip(*buckets, strict=True)))


def _without_zeros(counts: Mapping[Any, int]) -> Counts:
    return {str(name): count for name, count in counts.items() if count}
