"""The calls on the service itself: health and metrics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from flask import Response, current_app, g, request

from app.api.blueprint import Blueprint
from app.api.current import core, reply
from app.api.instruments import INSTRUMENTS
from app.api.metrics import prometheus_text, read_figures, wants_text
from app.api.openapi import PLAIN, VERSION
from app.api.security import sees_the_service
from app.api.system_schemas import HealthSchema, MetricsSchema
from app.core.composition import Core
from app.core.errors import StateUnavailable
from app.core.redis.heartbeats import OBSERVER_SILENCE, Policies
from app.core.redis.memory import Fill
from app.core.sessions.model import iso
from app.http.problems import Problem

POLICIES_WARNING = (
    "The cluster does not enforce NetworkPolicies: pods reach one another's ports, and workspaces reach every address. "
    "Install a network plugin that enforces them."
)

UNTOLD: dict[str, Any] = {"redis_memory": None, "network_policies": None, "warnings": []}
"""What /health says in place of its parts that only the service's operators are told."""

blp = Blueprint("system", __name__, description="The service itself.")


@blp.route("/health", methods=["GET"])
@blp.response(200, HealthSchema)
@blp.alt_response(503, schema=HealthSchema, description="A part of the service is missing; the body says which.")
@blp.operation("health", own=(503,), anonymous=True, without_redis=True)
def health() -> Response:
    """Health of the service's parts. `kubernetes` is the state of whatever runs the workspaces (see `runtime`), as the
    observer last reported; a silent observer counts as disconnected. A `degraded` service works and needs attention.

    Three parts are told only to an API key that is bound to no users: `redis_memory` is `filling` from 70 % on, and
    `full` when new sessions and prompts are refused; `network_policies`, null on one machine, says whether the cluster
    enforces them, by a test in the last minutes; `warnings` are for the people who installed it, and change no
    status."""
    now = time.time()
    parts = Parts(redis=False) if g.get("redis_down") else read_parts(core(), now)
    shown = parts.to_json(core().settings.runtime, now) | ({} if sees_the_service() else UNTOLD)
    return reply(shown, 200 if parts.healthy else 503)


@blp.route("/metrics", methods=["GET"])
@blp.response(200, MetricsSchema)
@blp.alt_response(200, schema=PLAIN, content_type="text/plain", description="Metrics.")
@blp.alt_response(200, schema=PLAIN, content_type="application/openmetrics-text", description="Metrics.")
@blp.operation("metrics", metrics_key=True)
def metrics() -> Response:
    """Metrics, as JSON, or for Prometheus if the Accept header asks for its text formats. A key of the role `metrics`
    opens only this; it may be sent as `Authorization: Bearer` too. A key that is bound to users is refused."""
    if not sees_the_service():
        raise Problem(403, "forbidden", "The metrics are those of the whole service; this key is bound to users.")
    figures = read_figures(core(), time.time())
    accept = request.headers.get("Accept", "")
    if not wants_text(accept):
        return reply(figures.to_json())
    text, content_type = prometheus_text(figures, current_app.extensions[INSTRUMENTS], accept)
    return Response(text, content_type=content_type)


@dataclass(frozen=True)
class Parts:
    """The state of the service's parts. `observer_age` is in seconds, None if the observer never reported."""

    redis: bool
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
    def isolation(self) -> Policies:
        """A pod that can't reach the API server proves enforcement only while the observer reaches it."""
        enforced = self.policies is Policies.ENFORCED
        return Policies.UNKNOWN if enforced and not self.watched else self.policies

    def to_json(self, runtime: str, now: float) -> dict[str, Any]:
        runtime_state = "connected" if self.watched else "disconnected"
        in_cluster = runtime == "kubernetes"
        age = None if self.observer_age is None else round(self.observer_age, 3)
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
            "observer_age_seconds": age,
            "timestamp": iso(now),
        }


def read_parts(service: Core, now: float) -> Parts:
    """The state of the parts; Redis being down is a result, not an error."""
    try:
        workers, age = service.heartbeats.workers(now), service.heartbeats.observer_age(now)
        policies = service.heartbeats.policies()
        return Parts(redis=True, workers=workers, observer_age=age, fill=service.memory.read(), policies=policies)
    except StateUnavailable:
        return Parts(redis=False)


def shown_fill(fill: Fill) -> dict[str, Any]:
    """How full Redis is; `percent` is null if it has no limit."""
    percent = None if fill.share is None else round(100 * fill.share, 1)
    return {"state": fill.state, "percent": percent, "used_bytes": fill.used, "max_bytes": fill.limit}
