"""CORS: web pages of `CORS_ORIGINS` may call the API from a browser, with a session token only.

Flask-CORS does not fit: it adds headers to answers of routes that take OPTIONS. No route here does, so a preflight,
which carries no key, would be refused (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

from flask import Flask, Response, request

MAX_AGE = "600"
"""s a browser caches the answer to a preflight."""

METHODS = "GET, POST"
REQUEST_HEADERS = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-Request-Id"
"""Not X-API-Key: everybody can read a key in a page."""

ANSWER_HEADERS = (
    "Idempotency-Replayed, Location, Preference-Applied, "
    "RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, X-Request-Id"
)


def register_cors(app: Flask, origins: frozenset[str]) -> None:
    """Let pages of these origins call `app`. Register it before the check of keys: a preflight carries none."""
    if not origins:
        return

    def preflight() -> Response | None:
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        return Response(status=204) if asks and request.headers.get("Origin") in origins else None

    def allow(response: Response) -> Response:
        response.headers.add("Vary", "Origin")
        origin = request.headers.get("Origin", "")
        if origin in origins:
            # No Allow-Credentials: the API takes no cookies.
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = ANSWER_HEADERS
            if request.method == "OPTIONS":
                response.headers["Access-Control-Allow-Methods"] = METHODS
                response.headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
                response.headers["Access-Control-Max-Age"] = MAX_AGE
        return response

    app.before_request(preflight)
    app.after_request(allow)
