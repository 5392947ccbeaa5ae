"""A span for each request of a web process; registers nothing where traces are off."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask, Response, g, request

from app.http.named_session import named_session
from app.process import tracing

UNTRACED = frozenset({"/livez", "/readyz", "/health", "/metrics"})
"""Routes that something asks for every few seconds."""


def trace_requests(app: Flask, follows: Callable[[], bool], *, continued_only: bool = False) -> None:
    """Trace the requests of `app`. `follows`: whether the current request's traceparent is continued, and with it its
    decision to sample; a stranger must not have all of its calls recorded. Call this after the hook by which the caller
    is known, and before all others. With `continued_only` only requests that are continued are traced: workspaces call
    the gateway all the time, and only their turns bring a traceparent."""
    if not tracing.enabled():
        return

    def begin() -> None:
        rule = request.url_rule.rule if request.url_rule else ""
        if rule in UNTRACED:
            return
        g.span = tracing.span(
            f"{request.method} {rule}".rstrip(),
            {"http.request.method": request.method, "http.route": rule},
            parent=request.headers.get(tracing.HEADER, "") if follows() else "",
            kind="server",
            root=not continued_only,
        )
        g.span.__enter__()

    app.before_request(begin)
    app.after_request(_note)
    app.teardown_request(_end)


def _note(response: Response) -> Response:
    if span := g.get("span"):
        span.set("http.response.status_code", response.status_code)
        span.set("request.id", g.get("request_id", ""))
        if uuid := named_session():
            span.set("session.uuid", uuid)
        if response.status_code >= 500:
            span.fail(str(response.status_code))
    return response


def _end(_: BaseException | None) -> None:
    if span := g.pop("span", None):
        span.__exit__(None, None, None)
