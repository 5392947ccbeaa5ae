"""Answers of the API passed on to the browser piece by piece, so that none is in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from flask import Response, request

from app.web.api import Streamed

PASSED = (
    "Content-Type",
    "Content-Length",
    "Content-Range",
    "Content-Disposition",
    "Accept-Ranges",
    "ETag",
    "Retry-After",
    "X-Accel-Buffering",
)


def part_asked() -> dict[str, str]:
    """The headers of the current request by which a browser asks for a part, to pass on."""
    return {name: request.headers[name] for name in ("Range", "If-Range") if name in request.headers}


def relayed(streamed: Streamed, pieces: Iterable[bytes] | None = None) -> Response:
    """The answer, with its status and the headers that belong to its body, or with other `pieces` as its body. It is
    closed with the response."""
    headers = {name: streamed.headers[name] for name in PASSED if name in streamed.headers}
    body = streamed.pieces if pieces is None else pieces
    response = Response(body, streamed.status, headers, direct_passthrough=True)
    response.call_on_close(cast(Any, streamed.pieces).close)
    return response
