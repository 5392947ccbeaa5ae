"""What the calls of the agent's HTTP interface share: how a request is read, and how it is refused."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from flask import Response, current_app, jsonify, request

RETRY_AFTER = 2
"""Seconds after which to retry a call that came while the agent starts or stops."""

LONGEST_WAIT = 30
"""Seconds a call on commands, services or ports waits."""

WAITING_CALLERS = 24
"""Server threads that may wait for outcomes; the others stay free for short calls."""

WAITING = "agent-waiting-callers"
"""The key in `Flask.extensions` of a semaphore of `WAITING_CALLERS`."""


class Problem(Exception):
    """An error response; `retry` adds a Retry-After header."""

    def __init__(self, status: int, code: str, detail: str, *, retry: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.retry = retry


def problem_response(e: Problem) -> Response:
    """A problem document; `retry` says when to try again."""
    title = e.code.replace("_", " ")
    body = {"type": "about:blank", "title": title, "status": e.status, "detail": str(e), "error": e.code}
    response = jsonify(body)
    response.status_code = e.status
    response.content_type = "application/problem+json"
    if e.retry:
        response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Hold one of the places of callers that wait."""
    places: threading.BoundedSemaphore = current_app.extensions[WAITING]
    if not places.acquire(blocking=False):
        raise Problem(503, "too_many_waiting", "Too many callers are waiting; use `Prefer: respond-async`.", retry=True)
    try:
        yield
    finally:
        places.release()


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Answer 503 when the disk can't be written."""
    try:
        yield
    except OSError:
        raise Problem(503, "disk", "The workspace's disk can't be written; it may be full.", retry=True) from None


def json_object() -> dict[str, Any]:
    """The body."""
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        raise Problem(400, "bad_request", "The body must be a JSON object.")
    return body


def checked_wait(seconds: Any) -> float:
    """The seconds that a caller wants to wait."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_WAIT:
        raise Problem(400, "bad_request", f"`wait` must be a number of seconds, at most {LONGEST_WAIT}.")
    return seconds


@contextlib.contextmanager
def awaited(seconds: Any) -> Iterator[Callable[[], float]]:
    """Hold one of the places of callers that wait, if this one does; yields what is left of its seconds."""
    seconds = checked_wait(seconds)
    deadline = time.monotonic() + seconds
    with waiting() if seconds else contextlib.nullcontext():
        yield lambda: max(0.0, deadline - time.monotonic())


def natural(name: str, default: int) -> int:
    """A number in the query."""
    text = request.args.get(name, str(default))
    if not text.isdecimal() or len(text) > 12:
        raise Problem(400, "bad_request", f"`{name}` must be a non-negative integer.")
    return int(text)
