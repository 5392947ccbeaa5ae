"""Where redis-py's exceptions end: every adapter of ours raises `StateUnavailable` instead.

Only what says "not now" is translated. A wrong type or a bad script is a bug of ours and stays
what it is, so that it is seen as one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from app.sessions.errors import StateUnavailable, StoreFull

log = logging.getLogger(__name__)

UNAVAILABLE = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError)
"""Unreachable, too slow, still loading (a ConnectionError), or a replica during a failover."""

REFUSALS = ("MISCONF", "MASTERDOWN", "LOADING", "BUSY ")
"""How the replies begin of a Redis that runs and can't serve: its disk is full, it has no master, it loads."""

TOLD_EVERY = 10.0
"""s between two lines of the log that say why Redis does not let us in: each call meets it."""

_told = float("-inf")


def not_let_in(error: BaseException) -> str:
    """What an operator has to mend when Redis is there and does not let us in, "" for any other error."""
    text = str(error)
    if isinstance(error, redis.AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS")):
        return "Redis refuses the user or the password: see REDIS_USERNAME, REDIS_PASSWORD and REDIS_URL."
    if isinstance(error, redis.exceptions.NoPermissionError):
        return f"Redis does not allow its user what is needed ({text}); ACL LOG says what."
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"Redis' certificate is not accepted, see REDIS_CA_FILE: {text.strip()}"
    if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text:
        return "Redis does not speak TLS at this port: REDIS_URL begins with rediss://."
    return ""


def _tell(error: BaseException) -> None:
    global _told
    why = not_let_in(error)
    if why and time.monotonic() - _told >= TOLD_EVERY:
        _told = time.monotonic()
        log.error(why)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Inside it, a Redis that can't serve raises `StateUnavailable`, whose text names no host; `StoreFull` one that is
    full."""
    try:
        yield
    except UNAVAILABLE as error:
        _tell(error)
        raise StateUnavailable("The state store can't be reached or did not answer in time.") from error
    except redis.OutOfMemoryError as error:
        raise StoreFull from error
    except redis.ResponseError as error:
        if not str(error).startswith(REFUSALS):
            _tell(error)
            raise
        raise StateUnavailable("The state store can't take commands for now.") from error
