"""Translates redis-py's exceptions: every adapter of ours raises `StateUnavailable` instead.

Only temporary failures are translated. A wrong type or a bad script is a bug of ours and stays visible as one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from app.core.errors import StateUnavailable, StoreFull

log = logging.getLogger(__name__)

UNAVAILABLE = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError)
"""Redis is unreachable, too slow, still loading (a ConnectionError), or a replica during a failover."""

REFUSALS = ("MISCONF", "MASTERDOWN", "LOADING", "BUSY ")
"""How the errors begin of a Redis that runs but can't serve: its disk is full, it has no master, it loads."""

LOG_INTERVAL = 10.0
"""s between two log lines about refused access, which every call meets."""

_logged_at = float("-inf")


def access_problem(error: BaseException) -> str:
    """What an operator must correct when Redis refuses access, "" for any other error."""
    text = str(error)
    if isinstance(error, redis.AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS")):
        return "Redis rejects the user or the password; check REDIS_USERNAME, REDIS_PASSWORD and REDIS_URL."
    if isinstance(error, redis.exceptions.NoPermissionError):
        return f"Redis denies its user a command or key ({text}); ACL LOG shows which."
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"The certificate of Redis is not trusted; check REDIS_CA_FILE: {text.strip()}"
    if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text:
        return "REDIS_URL begins with rediss://, but Redis does not speak TLS at this port."
    return ""


def _log_access_problem(error: BaseException) -> None:
    global _logged_at
    why = access_problem(error)
    if why and time.monotonic() - _logged_at >= LOG_INTERVAL:
        _logged_at = time.monotonic()
        log.error(why)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Within the block, a Redis that can't serve raises `StateUnavailable`, which names no host; a full one
    `StoreFull`."""
    try:
        yield
    except UNAVAILABLE as error:
        _log_access_problem(error)
        raise StateUnavailable("The state store is unreachable or did not answer in time; retry.") from error
    except redis.OutOfMemoryError as error:
        raise StoreFull from error
    except redis.ResponseError as error:
        if not str(error).startswith(REFUSALS):
            _log_access_problem(error)
            raise
        raise StateUnavailable("The state store does not accept commands at the moment; retry.") from error
