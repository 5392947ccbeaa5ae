"""What web processes answer the kubelet and other supervisors."""

from __future__ import annotations

from flask import Response

from app.core.errors import StateUnavailable
from app.core.redis.heartbeats import Heartbeats
from app.http.problems import RETRY_AFTER


def alive() -> Response:
    """That the process answers."""
    return Response("ok\n", mimetype="text/plain")


def ready(heartbeats: Heartbeats) -> Response:
    """Whether requests can be served: Redis answers. A full Redis counts as ready: deletions must get through."""
    try:
        heartbeats.ping()
    except StateUnavailable:
        headers = {"Retry-After": str(RETRY_AFTER)}
        return Response("the state store does not answer\n", 503, headers, mimetype="text/plain")
    return Response("ok\n", mimetype="text/plain")
