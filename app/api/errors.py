"""Problems for exceptions that only the API raises; app/http/problems.py has the others."""

from __future__ import annotations

from flask_limiter import RateLimitExceeded
from werkzeug.exceptions import NotFound

from app.api.rate_limits import refusal
from app.http.problems import Problem, to_problem


def to_api_problem(error: Exception) -> Problem:
    """The problem for `error`."""
    if isinstance(error, RateLimitExceeded):
        return refusal(error.limit.limit)
    if isinstance(error, NotFound):
        return Problem(404, "not_found", "There is no such path; /openapi.json lists all paths.")
    return to_problem(error)
