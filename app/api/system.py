"""The calls on the service itself: health and metrics."""

from __future__ import annotations

import time

from flask import Response, current_app, g, request

from app.api.answers import Answer
from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.health import Health, read_health
from app.api.instruments import INSTRUMENTS
from app.api.metrics import Metrics, prometheus_text, read_metrics, wants_text
from app.api.openapi import PLAIN
from app.api.security import sees_the_service
from app.api.system_schemas import HealthSchema, MetricsSchema
from app.http.problems import Problem

blp = Blueprint("system", __name__, description="The service itself.")


@blp.route("/health", methods=["GET"])
@blp.response(200, HealthSchema)
@blp.alt_response(503, schema=HealthSchema, description="A part of the service is missing; the body says which.")
@blp.operation("health", own=(503,), anonymous=True, without_redis=True)
def health() -> Answer:
    """Health of the service's parts. `kubernetes` is the state of whatever runs the workspaces (see `runtime`), as the
    observer last reported; a silent observer counts as disconnected. A `degraded` service works and needs attention.

    Three parts are told only to an API key that is bound to no users: `redis_memory` is `filling` from 70 % on, and
    `full` when new sessions and prompts are refused; `network_policies`, null on one machine, says whether the cluster
    enforces them, by a test in the last minutes; `warnings` are for the people who installed it, and change no
    status."""
    away = Health(read_at=time.time(), runtime=core().settings.runtime, told=sees_the_service())
    found = away if g.get("redis_down") else read_health(core(), away)
    return found, 200 if found.healthy else 503


@blp.route("/metrics", methods=["GET"])
@blp.response(200, MetricsSchema)
@blp.alt_response(200, schema=PLAIN, content_type="text/plain", description="Metrics.")
@blp.alt_response(200, schema=PLAIN, content_type="application/openmetrics-text", description="Metrics.")
@blp.operation("metrics", metrics_key=True)
def metrics() -> Metrics | Response:
    """Metrics, as JSON, or for Prometheus if the Accept header asks for its text formats. A key of the role `metrics`
    opens only this; it may be sent as `Authorization: Bearer` too. A key that is bound to users is refused."""
    if not sees_the_service():
        raise Problem(403, "forbidden", "The metrics are those of the whole service; this key is bound to users.")
    found = read_metrics(core(), time.time())
    accept = request.headers.get("Accept", "")
    if not wants_text(accept):
        return found
    text, content_type = prometheus_text(found, current_app.extensions[INSTRUMENTS], accept)
    return Response(text, content_type=content_type)
