"""The calls on the service itself: is it healthy, what does it count."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from flask import Response, g, request

from app.api.blueprint import Blueprint
from app.api.context import core, reply
from app.api.metrics import prometheus_text, read_figures, wants_text
from app.api.openapi import PLAIN, VERSION
from app.api.schemas import HealthSchema, MetricsSchema
from app.sessions.core import Core
from app.sessions.errors import StateUnavailable
from app.sessions.fleet import WATCHER_SILENCE, Policies
from app.sessions.memory import Fill
from app.sessions.model import iso

POLICIES_WARNING = (
    "The cluster does not enforce NetworkPolicies: its pods reach one another's ports, and workspaces every address. "
    "Install a network plugin that does."
)

blp = Blueprint("system", __name__, description="The service itself.")


@blp.route("/health", methods=["GET"])
@blp.response(200, HealthSchema)
@blp.alt_response(503, schema=HealthSchema, description="Something the service needs is missing; the body says what.")
@blp.operation("health", anonymous=True)
def health() -> Response:
    """How the parts of the service are. `kubernetes` speaks of whatever runs the workspaces (see
    `runtime`), as the watcher last reported; a silent watcher counts as disconnected. A `degraded` service works and
    needs somebody to look at it: `redis_memory` is `filling` from 70 % on, and `full` when new sessions and prompts
    are refused. `network_policies`, null on one machine, says whether the cluster enforces them, as was tried in the
    last minutes; `warnings` are for whoever installed it, and change no status."""
    now = time.time()
    parts = Parts(redis=False) if g.get("redis_down") else read_parts(core(), now)
    return reply(parts.to_json(core().settings.runtime, now), 200 if parts.healthy else 503)


@blp.route("/metrics", methods=["GET"])
@blp.response(200, MetricsSchema)
@blp.alt_response(200, schema=PLAIN, content_type="text/plain", description="Figures.")
@blp.operation("metrics")
def metrics() -> Response:
    """Figures, as JSON, or for Prometheus when the Accept header asks for its text formats."""
    figures = read_figures(core(), time.time())
    accept = request.headers.get("Accept", "")
    if not wants_text(accept):
        return reply(figures.to_json())
    text, content_type = prometheus_text(figures, accept)
    return Response(text, content_type=content_type)


@dataclass(frozen=True)
class Parts:
    """What the service is made of, as it is now. `watcher_age` is seconds, None for never heard of."""

    redis: bool
    workers: int = 0
    watcher_age: float | None = None
    fill: Fill | None = None
    policies: Policies = Policies.UNKNOWN

    @property
    def watched(self) -> bool:
        return self.watcher_age is not None and self.watcher_age <= WATCHER_SILENCE

    @property
    def healthy(self) -> bool:
        """A silent watcher means the records may be untrue; no worker means that nothing is carried out."""
        return self.redis and self.watched and self.workers > 0

    @property
    def status(self) -> str:
        if not self.healthy:
            return "unhealthy"
        return "degraded" if self.fill is not None and self.fill.state in ("filling", "full") else "healthy"

    @property
    def isolation(self) -> Policies:
        """What was tried is the API server: that nobody reached it means something while the watcher does."""
        enforced = self.policies is Policies.ENFORCED
        return Policies.UNKNOWN if enforced and not self.watched else self.policies

    def to_json(self, runtime: str, now: float) -> dict[str, Any]:
        runtime_state = "connected" if self.watched else "disconnected"
        in_cluster = runtime == "kubernetes"
        warned = in_cluster and self.isolation is Policies.NOT_ENFORCED
        return {
            "status": self.status,
            "version": VERSION,
            "redis": "connected" if self.redis else "disconnected",
            "redis_memory": None if self.fill is None else shown_fill(self.fill),
            "kubernetes": runtime_state if self.redis else "unknown",
            "workers": self.workers,
            "runtime": runtime,
            "network_policies": self.isolation if in_cluster else None,
            "warnings": [POLICIES_WARNING] if warned else [],
            "watcher_age_seconds": None if self.watcher_age is None else round(self.watcher_age, 3),
            "timestamp": iso(now),
        }


def read_parts(service: Core, now: float) -> Parts:
    """How the parts are; a Redis that does not answer is a finding, not an error."""
    try:
        workers, age = service.fleet.workers(now), service.fleet.watcher_age(now)
        policies = service.fleet.policies()
        return Parts(redis=True, workers=workers, watcher_age=age, fill=service.memory.read(), policies=policies)
    except StateUnavailable:
        return Parts(redis=False)


def shown_fill(fill: Fill) -> dict[str, Any]:
    """How full Redis is; `percent` is null where it has no limit."""
    percent = None if fill.share is None else round(100 * fill.share, 1)
    return {"state": fill.state, "percent": percent, "used_bytes": fill.used, "max_bytes": fill.limit}
