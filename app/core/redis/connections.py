"""How the service connects to Redis: every command is bounded, a dropped connection is retried once."""

from __future__ import annotations

from functools import cache

import redis
from redis import DriverInfo
from redis.backoff import NoBackoff
from redis.retry import Retry

COMMAND_TIMEOUT = 1.0
"""s for any command, so that a call is 503 within 2 s while Redis is down."""

MOST = 256
"""Connections of a process. With all in use, a command waits for one as long as for a response: thousands of waiting
threads that read at once do not become thousands of clients of Redis."""


def connect(url: str, timeout: float | None = None) -> redis.Redis:
    """A client with text responses. `timeout` (s; None: `COMMAND_TIMEOUT`) bounds connecting and every command. Only a
    dropped connection is retried, once, so that a restart of Redis goes unnoticed and a hang costs one timeout."""
    timeout = COMMAND_TIMEOUT if timeout is None else timeout
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=MOST,
        timeout=timeout,
        decode_responses=True,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        health_check_interval=0,
        driver_info=driver_info(),
    )
    return redis.Redis.from_pool(pool)


@cache
def driver_info() -> DriverInfo:
    """What connections say of themselves. Made once: without it each looks up redis-py's version on disk, which takes
    longer than to connect."""
    return DriverInfo()
