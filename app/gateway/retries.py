"""When a request to the model's API is sent again, and after how long. Pure functions: no waiting, no clock."""

from __future__ import annotations

import json
import math

from werkzeug.http import parse_date

RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""Temporary errors; some providers answer 529 when overloaded."""

FIRST_DELAY, LONGEST_DELAY = 0.5, 8.0
"""s: the first wait, doubled with each try, and the longest one, if the provider names none."""

LONGEST_RETRY_AFTER = 30.0
"""s: if the provider names a longer pause, there is no retry; the caller gets the answer with its Retry-After."""

HOPELESS = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Codes of a 429 that waiting does not mend: the account is empty."""


def worth_retrying(status: int, body: bytes) -> bool:
    """Whether the provider may answer differently a moment later."""
    return status in RETRIED and error_code(body) not in HOPELESS


def error_code(body: bytes) -> str:
    """The `code` (or `type`) of an error in the provider's format, "" for any other body."""
    try:
        error = json.loads(body)["error"]
        return str(error.get("code") or error.get("type") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def retry_delay(attempt: int, retry_after: float | None, jitter: float) -> float:
    """Seconds to wait after try number `attempt` (from 0). `jitter`, from 0 to 1, spreads callers that were refused
    together: between half and all of the wait, and never before the moment the provider named."""
    if retry_after is not None:
        return retry_after * (1.0 + jitter / 10)
    longest = min(LONGEST_DELAY, FIRST_DELAY * float(2**attempt))
    return longest * (0.5 + jitter / 2)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """The seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); None for anything else. `now` is in
    seconds since the epoch. Providers send fractions, which urllib3's parser refuses."""
    try:
        seconds = float(value or "")
    except ValueError:
        when = parse_date(value)
        return None if when is None else max(0.0, when.timestamp() - now)
    return max(0.0, seconds) if math.isfinite(seconds) else None
