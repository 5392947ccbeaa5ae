"""When a request to the model's API is sent again, and after how long. Nothing here waits or looks at a clock."""

from __future__ import annotations

import email.utils
import json
import math
from datetime import UTC

RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
"""Statuses that say "not now"; 529 is what some providers answer when overloaded."""

FIRST_DELAY, LONGEST_DELAY = 0.5, 8.0
"""s: the first wait, doubled with each try, and the most of one when the provider names none."""

LONGEST_RETRY_AFTER = 30.0
"""s: a provider that wants a longer pause gets no second try, and whoever asked hears of the pause instead."""

HOPELESS = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Codes of a 429 that no waiting mends: the account is empty."""


def worth_retrying(status: int, body: bytes) -> bool:
    """Whether an answer of the provider may be another one a moment later."""
    return status in RETRIED and error_code(body) not in HOPELESS


def error_code(body: bytes) -> str:
    """The `code` (or `type`) of an error in the provider's shape, "" when the body is none."""
    try:
        error = json.loads(body)["error"]
        return str(error.get("code") or error.get("type") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def retry_delay(attempt: int, retry_after: float | None, jitter: float) -> float:
    """Seconds to wait after try number `attempt` (from 0). `jitter`, from 0 to 1, spreads those who were
    refused together: between half and all of the wait, and never before the moment the provider named."""
    if retry_after is not None:
        return retry_after * (1.0 + jitter / 10)
    longest = min(LONGEST_DELAY, FIRST_DELAY * float(2**attempt))
    return longest * (0.5 + jitter / 2)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds a Retry-After header names, as a number or as a date (RFC 9110, 10.2.3); None for neither.
    `now` is seconds since the epoch."""
    if not value:
        return None
    try:
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - now)
