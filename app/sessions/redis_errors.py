"""Where redis-py's exceptions end: every adapter of ours raises `StateUnavailable` instead.

Only what says "not now" is translated. A wrong type or a bad script is a bug of ours and stays
what it is, so that it is seen as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from app.sessions.errors import StateUnavailable, StoreFull

UNAVAILABLE = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError)
"""Unreachable, too slow, still loading (a ConnectionError), or a replica during a failover."""

REFUSALS = ("MISCONF", "MASTERDOWN", "LOADING", "BUSY ")
"""How the replies begin of a Redis that runs and can't serve: its disk is full, it has no master, it loads."""


@contextmanager
def redis_errors() -> Iterator[None]:
    """Inside it, a Redis that can't serve raises `StateUnavailable`, whose text names no host; `StoreFull` one that is
    full."""
    try:
        yield
    except UNAVAILABLE as error:
        raise StateUnavailable("The state store can't be reached or did not answer in time.") from error
    except redis.OutOfMemoryError as error:
        raise StoreFull from error
    except redis.ResponseError as error:
        if not str(error).startswith(REFUSALS):
            raise
        raise StateUnavailable("The state store can't take commands for now.") from error
