"""Problems for exceptions that only the API raises; app/problems.py has the others."""

from __future__ import annotations

from flask_limiter import RateLimitExceeded
from werkzeug.exceptions import NotFound

from app.problems import Problem, to_problem


def to_api_problem(error: Exception) -> Problem:
    """The problem for `error`."""
    if isinstance(error, RateLimitExceeded):
        return Problem(429, "rate_limited", f"Only {error.limit.limit} of these requests are allowed.")
    if isinstance(error, NotFound):
        return Problem(404, "not_found", "There is no such path; /openapi.json lists all paths.")
    return to_problem(error)
