"""Hooks around every request of a web process: its id, its size, its log line, its metrics, and headers that protect
browsers."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from random import getrandbits
from types import MappingProxyType

from flask import Flask, Response, g, request

from app.core.byte_budget import ByteBudget
from app.http.bodies import register_bodies
from app.http.problems import EXPLANATIONS, Problem, safe_path
from app.http.request_metrics import HttpMetrics
from app.process import logs

log = logging.getLogger("app.requests")

HEADER = "X-Request-Id"
ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,128}")
API_POLICY = "default-src 'none'; frame-ancestors 'none'"


def register_request_hooks(
    app: Flask,
    metrics: HttpMetrics,
    max_body_bytes: int,
    budget: ByteBudget,
    larger: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Register these before all other hooks: requests pass here first and answers last. A body may have
    `max_body_bytes`, or the bytes in `larger` for its endpoint; all bodies together share `budget`. Each answer is
    counted in `metrics`."""

    def begin() -> None:
        given = request.headers.get(HEADER, "")
        request_id = given if ID_PATTERN.fullmatch(given) else f"{getrandbits(128):032x}"
        g.request_id, g.started = request_id, time.monotonic()
        logs.request_id.set(request_id)
        # Before the body is read; one of unknown length is cut off at the same size while it is read.
        request.max_content_length = larger.get(request.endpoint or "", max_body_bytes)
        if (request.content_length or 0) > request.max_content_length:
            raise Problem(413, "payload_too_large", EXPLANATIONS[413])

    register_bodies(app, budget)
    app.before_request(begin)
    app.after_request(lambda response: _finish(response, metrics))


def _finish(response: Response, metrics: HttpMetrics) -> Response:
    headers = response.headers
    headers.add(HEADER, g.request_id)
    headers.add("X-Content-Type-Options", "nosniff")
    if "Content-Security-Policy" not in headers:
        headers.add("Content-Security-Policy", API_POLICY)
    if "Cache-Control" not in headers:
        headers.add("Cache-Control", "no-store")
    seconds = time.monotonic() - g.started
    # How long a stream lasts says nothing about the service.
    metrics.answered(request.endpoint, request.method, response.status_code, None if response.is_streamed else seconds)
    _log(response, seconds)
    return response


def _log(response: Response, seconds: float) -> None:
    """Log one line for each request. Successful reads, requests that a view marks as routine (`g.routine`), and errors
    marked as expected (`g.expected`) are logged at DEBUG, or the log would hold little else."""
    fine = response.status_code < 400 or g.get("expected", False)
    routine = (request.method in ("GET", "HEAD") or g.get("routine", False)) and fine
    level = logging.DEBUG if routine else logging.INFO
    if log.isEnabledFor(level):
        principal = g.get("principal")
        facts = {
            "method": request.method,
            "path": safe_path(),
            "status": response.status_code,
            "ms": round(seconds * 1000, 1),
            "caller": principal.name if principal else "",
        }
        log.log(level, "request", extra=facts)
