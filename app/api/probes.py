"""Whether a process is alive and ready, for the kubelet and other supervisors."""

from __future__ import annotations

from flask import Response

from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.openapi import PLAIN
from app.core.errors import StateUnavailable

blp = Blueprint("probes", __name__, description="Whether a process is alive and ready.")


@blp.route("/livez", methods=["GET"])
@blp.response(200, PLAIN, content_type="text/plain", description="The process answers.")
@blp.operation("live", anonymous=True, without_redis=True, rate=None)
def livez() -> Response:
    """Whether the process answers."""
    return Response("ok\n", mimetype="text/plain")


@blp.route("/readyz", methods=["GET"])
@blp.response(200, PLAIN, content_type="text/plain", description="Ready for requests.")
@blp.alt_response(503, schema=PLAIN, content_type="text/plain", description="Redis does not answer.")
@blp.operation("ready", own=(503,), anonymous=True, without_redis=True, rate=None)
def readyz() -> Response:
    """Whether requests can be served: Redis answers. A full Redis counts as ready: deletions must get through."""
    try:
        core().heartbeats.ping()
    except StateUnavailable:
        return Response("the state store does not answer\n", 503, {"Retry-After": "2"}, mimetype="text/plain")
    return Response("ok\n", mimetype="text/plain")
