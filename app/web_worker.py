"""gunicorn's threaded worker, answering what it can't even parse in the service's own way.

A request that never reaches the app (a header too long, a broken request line) gets gunicorn's HTML
page otherwise, in a service whose clients read JSON.
"""

from __future__ import annotations

import json
import socket
import struct
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.util import write_nonblock  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

CLIENT_ERRORS: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (errors.LimitRequestLine, HTTPStatus.REQUEST_URI_TOO_LONG),
    (errors.LimitRequestHeaders, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (errors.ExpectationFailed, HTTPStatus.EXPECTATION_FAILED),
    (errors.UnsupportedTransferCoding, HTTPStatus.BAD_REQUEST),
    (errors.ForbiddenProxyRequest, HTTPStatus.FORBIDDEN),
    (errors.ParseException, HTTPStatus.BAD_REQUEST),
)
"""The status for what a client did wrong before the app could say so; the first that fits."""


CLIENT_TIMEOUT = 20.0
"""s a client may take for the next bytes of its request, or to take the next ones of its answer. Set in the
kernel: gunicorn puts its sockets back to waiting for ever."""


def bound_waits(client: socket.socket, seconds: float) -> None:
    """Let every wait of a blocking socket end with an `OSError` after so long (socket(7), SO_RCVTIMEO)."""
    whole, part = divmod(round(seconds * 1_000_000), 1_000_000)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        client.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", whole, part))


class ProblemWorker(ThreadWorker):
    """`gthread` with problem documents, in which no client holds a thread by sending or reading nothing."""

    def handle(self, conn: Any) -> Any:
        bound_waits(conn.sock, CLIENT_TIMEOUT)
        return super().handle(conn)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        status = next((status for kind, status in CLIENT_ERRORS if isinstance(exc, kind)), None)
        if status is None:
            super().handle_error(req, client, addr, exc)
            return
        try:
            write_nonblock(client, answer(status, uuid4().hex))
        except OSError:
            self.log.debug("a client left before it was told that its request is malformed")


def answer(status: HTTPStatus, request_id: str) -> bytes:
    """A whole HTTP response with a problem document; the connection ends with it."""
    problem = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": "The request could not be read as HTTP.",
        "instance": "",
        "error": "malformed_request",
        "request_id": request_id,
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {int(status)} {status.phrase}\r\nConnection: close\r\nX-Request-Id: {request_id}\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body
