"""When to repeat a request, and after which pause: only what can't do anything twice."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import httpx

from workspaces.errors import ApiError, ConnectionFailed, RequestInProgress, TimedOut, WorkspacesError

FIRST_PAUSE: Final = 0.25
"""s before the first repetition; it doubles with each."""

LONGEST_PAUSE: Final = 8.0

MOST_SECONDS: Final = 60.0
"""s from the first try on, after which nothing is repeated."""

AGAIN: Final = frozenset({429, 502, 503, 504})
"""Statuses of requests that were not carried out, where `Retry-After` says so."""

NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class Retries:
    """`tries` repetitions at most, within `seconds` of the first try. `jitter` answers a number from 0 to 1."""

    tries: int
    seconds: float = MOST_SECONDS
    jitter: Callable[[], float] = random.random

    def pause(self, failure: WorkspacesError, repeatable: bool, tried: int, spent: float) -> float | None:
        """Seconds until the next try, None if there is none: after `tried` tries, `spent` seconds after the first.
        `repeatable` is a request that may be carried out twice without harm."""
        if tried > self.tries or not may_repeat(failure, repeatable):
            return None
        pause = self.backoff(tried)
        if failure.retry_after is not None:
            # Spread out, so that those who were refused together don't come back together.
            pause = failure.retry_after + FIRST_PAUSE * self.jitter()
        return pause if spent + pause <= self.seconds else None

    def backoff(self, tried: int) -> float:
        """Seconds to wait after so many failures in a row: exponential, with jitter."""
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tried - 1, 16))
        return longest * (0.5 + 0.5 * self.jitter())


def may_repeat(failure: WorkspacesError, repeatable: bool) -> bool:
    """Whether a failed request may be sent again."""
    if isinstance(failure, ConnectionFailed):
        return repeatable or isinstance(failure.__cause__, NEVER_SENT)
    if isinstance(failure, RequestInProgress):
        return repeatable and failure.retry_after is not None
    return isinstance(failure, ApiError) and failure.status in AGAIN and failure.retry_after is not None


def connection_error(error: httpx.TransportError, url: str) -> ConnectionFailed:
    """The error of this package for one of the HTTP library; it is raised `from` that."""
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(f"{url} did not answer in time.")
    return ConnectionFailed(f"{url} can't be reached, or the connection broke: {error}")
