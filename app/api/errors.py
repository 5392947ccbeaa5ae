"""What the API's own exceptions are answered with; all others are app/problems.py's."""

from __future__ import annotations

from flask_limiter import RateLimitExceeded
from werkzeug.exceptions import NotFound

from app.problems import Problem, to_problem


def to_api_problem(error: Exception) -> Problem:
    """What the caller is told about `error`."""
    if isinstance(error, RateLimitExceeded):
        return Problem(429, "rate_limited", f"Only {error.limit.limit} of these requests are allowed.")
    if isinstance(error, NotFound):
        return Problem(404, "not_found", "Nothing is at this path; /openapi.json lists what there is.")
    return to_problem(error)
