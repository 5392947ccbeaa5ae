"""Which of the time that the wall clock shows counts towards a deletion.

A clock may jump, be wrong for a while, and go on while no manager runs. Redis' own is no help: on one machine it is the
same. So the sweep notes in Redis, at every tick, that it runs; what the clock skipped between two ticks is a gap, and
nothing ages in one. Whatever is deleted for its age is asked for its counted age, by a tick made in that very sweep.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import redis

from app.sessions import keys
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import script
from app.settings import Settings

log = logging.getLogger(__name__)

JUMP = 30.0
"""s between two ticks that count; a sweep that is held up, and a clock that is adjusted gradually, stay below."""

SWEEPS_MISSED = 3
"""A sweep this many intervals late ran all along."""

GAPS_KEPT = 100
"""A restart that took longer than `JUMP` leaves one. Beyond that those closest together become one, and what was
counted between them counts no more: everything lives a little longer."""


@dataclass(frozen=True)
class Counted:
    """The time as it counts: `now`, and the `gaps` before it, (from, to), oldest first and apart from one another. All
    are seconds since the epoch."""

    now: float
    gaps: tuple[tuple[float, float], ...] = ()

    def age(self, moment: float) -> float:
        """Counted seconds from `moment` until now; negative for one in the future."""
        skipped = sum(max(0.0, min(to, self.now) - max(begin, moment)) for begin, to in self.gaps)
        return self.now - moment - skipped

    def ago(self, seconds: float) -> float:
        """The latest moment that is at least so many counted seconds old, below 0 when there is none."""
        cutoff = self.now
        for begin, to in reversed(self.gaps):
            if cutoff - to >= seconds:
                break
            seconds -= cutoff - to
            cutoff = begin
        return cutoff - seconds


class CountedTime:
    """The ledger of ticks and gaps in Redis. `jump` (s) is how far apart two ticks may be for the time between them to
    count."""

    def __init__(self, client: redis.Redis, jump: float = JUMP) -> None:
        self._jump = jump
        self._tick = client.register_script(script("tick"))

    @classmethod
    def of(cls, client: redis.Redis, settings: Settings) -> CountedTime:
        """That of a service whose sweeps run as `settings` say."""
        return cls(client, max(JUMP, SWEEPS_MISSED * settings.sweep_interval))

    def tick(self, now: float) -> Counted:
        """Note that the service runs at `now`; answers which of the time before counts. Where Redis knows of no tick,
        none does. Raises `StateUnavailable`."""
        with redis_errors():
            gaps, skipped = self._tick(keys=[keys.CLOCK], args=[f"{now:.3f}", self._jump, GAPS_KEPT])
        if float(skipped):
            _tell(float(skipped), now)
        return Counted(now, tuple((float(begin), float(to)) for begin, to in json.loads(gaps)))


def _tell(skipped: float, now: float) -> None:
    if skipped < now:
        log.warning("no sweep ran for %.0f s, or the clock jumped: nothing ages by that time", skipped)
    else:
        log.warning("Redis knows of no sweep before: what is there ages from now on")
