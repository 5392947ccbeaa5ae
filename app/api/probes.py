"""Whether a process is alive and ready, for the kubelet and other supervisors."""

from __future__ import annotations

from flask import Response

from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.openapi import PLAIN
from app.http import readiness

blp = Blueprint("probes", __name__, description="Whether a process is alive and ready.")


@blp.route("/livez", methods=["GET"])
@blp.response(200, PLAIN, content_type="text/plain", description="The process answers.")
@blp.operation("live", anonymous=True, without_redis=True, rate=None)
def livez() -> Response:
    """Whether the process answers."""
    return readiness.alive()


@blp.route("/readyz", methods=["GET"])
@blp.response(200, PLAIN, content_type="text/plain", description="Ready for requests.")
@blp.alt_response(503, schema=PLAIN, content_type="text/plain", description="Redis does not answer.")
@blp.operation("ready", own=(503,), anonymous=True, without_redis=True, rate=None)
def readyz() -> Response:
    """Whether requests can be served: Redis answers. A full Redis counts as ready: deletions must get through."""
    return readiness.ready(core().heartbeats)
