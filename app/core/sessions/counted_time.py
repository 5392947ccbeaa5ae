"""How much of the wall clock's time counts towards a deletion.

A clock may jump, be wrong for a while, and go on while the service is down. Redis' clock is no help: on one machine it
is the same one. So the sweep notes a tick in Redis each time it runs. What the clock skipped between two ticks is a
gap, in which nothing ages. Deletions for age go by counted time, from a tick of the same sweep.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.scripts import Script

log = logging.getLogger(__name__)

JUMP = 30.0
"""s two ticks may be apart for the time between to count; a delayed sweep or a slewed clock stays below."""

GAPS_KEPT = 100
"""A restart longer than `JUMP` leaves a gap. Beyond this number the two gaps closest together become one, and the time
between them no longer counts: everything lives a little longer."""


@dataclass(frozen=True)
class Counted:
    """`now` and the `gaps` before it, (from, to), oldest first and disjoint; in seconds since the epoch."""

    now: float
    gaps: tuple[tuple[float, float], ...] = ()

    def age(self, moment: float) -> float:
        """Counted seconds from `moment` until now; negative for one in the future."""
        skipped = sum(max(0.0, min(to, self.now) - max(begin, moment)) for begin, to in self.gaps)
        return self.now - moment - skipped

    def ago(self, seconds: float) -> float:
        """The latest moment at least so many counted seconds old, below 0 for none."""
        cutoff = self.now
        for begin, to in reversed(self.gaps):
            if cutoff - to >= seconds:
                break
            seconds -= cutoff - to
            cutoff = begin
        return cutoff - seconds


class CountedTime:
    """The ticks and gaps in Redis. Time between two ticks more than `JUMP` apart does not count."""

    def __init__(self, client: redis.Redis) -> None:
        self._tick = Script(client, "tick")

    @redis_errors
    def tick(self, now: float) -> Counted:
        """Note that the service runs at `now`; answers which time before that counts: none without an earlier tick.
        Raises `StateUnavailable`."""
        gaps, skipped = self._tick(clock=keys.CLOCK, now=f"{now:.3f}", jump=JUMP, most=GAPS_KEPT)
        if float(skipped):
            _log_gap(float(skipped), now)
        return Counted(now, tuple((float(begin), float(to)) for begin, to in json.loads(gaps)))


def _log_gap(skipped: float, now: float) -> None:
    if skipped < now:
        log.warning("no sweep ran for %.0f s, or the clock jumped: this time does not count towards deletions", skipped)
    else:
        log.warning("Redis has no record of earlier sweeps: ages are counted from now on")
