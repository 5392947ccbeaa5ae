"""Translates redis-py's exceptions: every adapter of ours raises `StateUnavailable` instead.

Only temporary failures are translated. A wrong type or a bad script is a bug of ours and stays visible as one.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

import redis

from app.core.errors import StateUnavailable, StoreFull

log = logging.getLogger(__name__)

UNAVAILABLE = (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError)
"""Redis is unreachable, too slow, still loading (a ConnectionError), or a replica during a failover."""

REFUSALS = ("MISCONF", "MASTERDOWN", "LOADING", "BUSY ")
"""How the errors begin of a Redis that runs but can't serve: its disk is full, it has no master, it loads."""

LOG_INTERVAL = 10.0
"""s between two log lines about refused access, which every call meets."""

RUN_LATER = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
"""Which functions do nothing before their call returns."""

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

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


def _translate(error: redis.RedisError) -> None:
    """Raises the error of ours that stands for this one; returns where it has to stay visible as it is."""
    if isinstance(error, UNAVAILABLE):
        _log_access_problem(error)
        raise StateUnavailable("The state store is unreachable or did not answer in time; retry.") from error
    if isinstance(error, redis.OutOfMemoryError):
        raise StoreFull from error
    if isinstance(error, redis.ResponseError):
        if str(error).startswith(REFUSALS):
            raise StateUnavailable("The state store does not accept commands at the moment; retry.") from error
        _log_access_problem(error)


class _RedisErrors:
    """Of `redis_errors`. It has no state, so all methods and threads share one object."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, redis.RedisError):
            _translate(error)

    def __call__(self, method: Callable[Given, Answer]) -> Callable[Given, Answer]:
        # What @contextmanager returns is a plain function around a generator function.
        function = inspect.unwrap(method)
        if any(runs_later(function) for runs_later in RUN_LATER):
            raise TypeError(
                f"{method.__qualname__} runs only after its call has returned, so @redis_errors would guard nothing: "
                "put `with redis_errors:` around its accesses."
            )

        @wraps(method)
        def guarded(*args: Given.args, **kwargs: Given.kwargs) -> Answer:
            # As the block does, without its two calls: this is on the path of every request.
            try:
                return method(*args, **kwargs)
            except redis.RedisError as error:
                _translate(error)
                raise

        return guarded


redis_errors = _RedisErrors()
"""Above a method, `@redis_errors`, or around a block, `with redis_errors:`. There, a Redis that can't serve raises
`StateUnavailable`, which names no host; a full one `StoreFull`.

The decorator stands next to the method, beneath any other. A generator or a coroutine needs the block: it runs only
after its call has returned."""
