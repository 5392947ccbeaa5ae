"""Turns every exception into an answer, an RFC 9457 problem document, in all web processes.

`type` stays `about:blank`, for which the RFC wants the status' own phrase as `title`; the stable code
to program against is `error`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, g, request
from flask.json import dumps
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from werkzeug.exceptions import HTTPException

from app.core.errors import (
    BackupInUse,
    BackupNotFound,
    DeadLetterNotFound,
    ExecIdReused,
    ExecNotFound,
    FileRefused,
    IllegalState,
    InputMoved,
    InvalidRequest,
    KeyReused,
    NoTerminal,
    PromptIdReused,
    PromptNotFound,
    PromptTooLarge,
    RestorePointLate,
    RestorePointNotFound,
    RetryableError,
    ServiceNotFound,
    SessionError,
    SessionNotFound,
    StateUnavailable,
    StoreFull,
    Superseded,
    WakeLate,
)
from app.core.limit_errors import (
    BudgetExceeded,
    LimitReached,
    QuotaExceeded,
    ServerLimitReached,
    TooManyPorts,
    TooManyServices,
)
from app.http.named_session import named_session

log = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER = 2
"""s: Redis restarts in less; with a longer pause clients would notice late."""

RETRY_WHEN_CONFIGURED = 60
"""s: an operator has to set something, and the service starts anew."""

CORE_ERRORS: Mapping[type[SessionError], int] = {
    InvalidRequest: 400,
    BudgetExceeded: 403,
    SessionNotFound: 404,
    BackupNotFound: 404,
    PromptNotFound: 404,
    DeadLetterNotFound: 404,
    RestorePointNotFound: 404,
    ExecNotFound: 404,
    ServiceNotFound: 404,
    PromptTooLarge: 413,
    PromptIdReused: 422,
    ExecIdReused: 422,
    KeyReused: 422,
    LimitReached: 429,
    IllegalState: 409,
    InputMoved: 409,
    NoTerminal: 409,
    QuotaExceeded: 409,
    TooManyServices: 409,
    TooManyPorts: 409,
    BackupInUse: 409,
    Superseded: 409,
    RestorePointLate: 504,
    WakeLate: 504,
    StoreFull: 507,
    StateUnavailable: 503,
    ServerLimitReached: 503,
    RetryableError: 503,
    SessionError: 500,
}
"""The status of each of the core's errors; a subclass that is missing here has its parent's."""

FILE_ERRORS: Mapping[str, int] = {
    "invalid_path": 400,
    "file_not_found": 404,
    "file_changed": 412,
    "invalid_archive": 422,
    "not_watched": 503,
    "workspace_full": 507,
}
"""The status of a `FileRefused`, by its code; 409 for the others."""

HTTP_ERRORS: Mapping[int, str] = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "payload_too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    422: "unprocessable",
    503: "unavailable",
}
"""The code for errors of the web framework, by status."""

EXPLANATIONS: Mapping[int, str] = {
    404: "There is no such path.",
    405: "This path does not support that method; the Allow header lists the supported ones.",
    413: "The request body is larger than this service accepts.",
}
"""Texts in place of the web framework's own."""


class Problem(Exception):
    """An error as its answer will say it. `detail` is for the caller to read, `more` are extension members;
    `retry_after` is in s, and becomes the header."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Mapping[str, list[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: int | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        self.more = dict(more or {})


def problem_response(problem: Problem) -> Response:
    """The problem document of `problem`, for the current request."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": quote(request.path),
        "error": problem.code,
        "request_id": g.get("request_id", ""),
    }
    if problem.errors:
        body["errors"] = dict(problem.errors)
    body |= problem.more
    return Response(dumps(body), problem.status, problem.headers, content_type=PROBLEM_TYPE)


def to_problem(error: Exception) -> Problem:
    """The problem for `error`. An unexpected exception becomes "internal_error", without details."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, SessionError):
        status = status_of(error)
        if isinstance(error, LimitReached):
            return Problem(status, error.code, str(error), retry_after=error.retry_after, more=error.members)
        return Problem(status, error.code, str(error), retry_after=RETRY_AFTER if status in (503, 507) else None)
    if isinstance(error, HTTPException) and error.code is not None and error.code < 500:
        return _http_problem(error, error.code)
    if isinstance(error, ParseException):
        return Problem(400, "invalid_request", "The request body is not framed as HTTP requires.")
    return Problem(500, "internal_error", "An unexpected error; find the request_id in the logs.")


def status_of(error: SessionError) -> int:
    """The status of the answer that an error of the core becomes."""
    if isinstance(error, FileRefused):
        return FILE_ERRORS.get(error.code, 409)
    return next(CORE_ERRORS[kind] for kind in type(error).__mro__ if kind in CORE_ERRORS)


def _http_problem(error: HTTPException, status: int) -> Problem:
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    detail = EXPLANATIONS.get(status) or error.description or HTTPStatus(status).phrase
    return Problem(status, HTTP_ERRORS.get(status, "http_error"), detail, headers=headers)


def safe_path() -> str:
    """The path of the request for a log line: its route, with the session's uuid. The other parts of a path are the
    caller's texts, and so are a malformed uuid and a path without a route."""
    rule = request.url_rule
    return rule.rule.replace("<session:uuid>", named_session() or "<session:uuid>") if rule else ""


def register_error_handlers(
    app: Flask,
    translate: Callable[[Exception], Problem] = to_problem,
    show: Callable[[Problem], Response] = problem_response,
) -> None:
    """Answer every exception of `app` with the problem that `translate` makes of it, as `show` shows it; log those with
    status 500."""

    def answer(error: Exception) -> Response:
        problem = translate(error)
        if problem.status == 500:
            log.error("request failed", exc_info=error, extra={"error": problem.code, "path": safe_path()})
        return show(problem)

    app.register_error_handler(Exception, answer)
    # Without this one, Flask would wrap what was raised.
    app.register_error_handler(HTTPException, answer)
