"""The state of the service's parts, which /health tells."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.core.composition import Core
from app.core.errors import StateUnavailable
from app.core.redis.heartbeats import OBSERVER_SILENCE, Policies
from app.core.redis.memory import Fill


@dataclass(frozen=True, kw_only=True)
class Health:
    """The state of the parts at `read_at` (s since the epoch), at first as it is without Redis. `observer_age` is in
    seconds, None if the observer never reported. `told`: whether the caller is told what only operators are."""

    read_at: float
    runtime: str
    told: bool
    redis: bool = False
    workers: int = 0
    observer_age: float | None = None
    fill: Fill | None = None
    policies: Policies = Policies.UNKNOWN

    @property
    def watched(self) -> bool:
        return self.observer_age is not None and self.observer_age <= OBSERVER_SILENCE

    @property
    def healthy(self) -> bool:
        """With a silent observer the records may be outdated; without a worker nothing is carried out."""
        return self.redis and self.watched and self.workers > 0

    @property
    def status(self) -> str:
        if not self.healthy:
            return "unhealthy"
        return "degraded" if self.fill is not None and self.fill.state in ("filling", "full") else "healthy"

    @property
    def isolation(self) -> Policies | None:
        """None on one machine. A pod that can't reach the API server proves enforcement only while the observer
        reaches it."""
        if self.runtime != "kubernetes":
            return None
        enforced = self.policies is Policies.ENFORCED
        return Policies.UNKNOWN if enforced and not self.watched else self.policies


def read_health(service: Core, away: Health) -> Health:
    """The state of the parts; `away`, the state without Redis, if that is down."""
    try:
        return replace(
            away,
            redis=True,
            workers=service.heartbeats.workers(away.read_at),
            observer_age=service.heartbeats.observer_age(away.read_at),
            policies=service.heartbeats.policies(),
            fill=service.memory.read(),
        )
    except StateUnavailable:
        return away
