"""The calls on the gateway itself: probes and metrics."""

from __future__ import annotations

from flask import Blueprint, Response, request

from app.core.errors import StateUnavailable
from app.gateway.parts import gateway
from app.http.problems import Problem

blp = Blueprint("system", __name__)


@blp.get("/livez")
def livez() -> Response:
    """Whether the process answers."""
    return Response("ok\n", mimetype="text/plain")


@blp.get("/readyz")
def readyz() -> Response:
    """Whether requests can be served: Redis answers. No model is needed."""
    try:
        gateway().core.heartbeats.ping()
    except StateUnavailable:
        return Response("the state store does not answer\n", 503, {"Retry-After": "2"}, mimetype="text/plain")
    return Response("ok\n", mimetype="text/plain")


@blp.get("/metrics")
def metrics() -> Response:
    """Metrics for Prometheus, as long as they have no port of their own: workspaces reach this one."""
    if gateway().core.settings.metrics_port:
        raise Problem(404, "not_found", "The metrics are at METRICS_PORT, which workspaces don't reach.")
    text, content_type = gateway().figures.text(request.headers.get("Accept", ""))
    return Response(text, content_type=content_type)
