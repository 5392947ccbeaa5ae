"""How a process of the service connects to Redis: every command bounded, one retry on a dropped connection."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

MOST = 256
"""Connections of a process. Whoever finds all in use waits for one, as long as for an answer: when thousands who wait
look at once, Redis has no more clients than before."""


def connect(url: str, timeout: float) -> redis.Redis:
    """A client with text answers. `timeout` (s) bounds connecting and every command; only a dropped
    connection is tried again, once, so that a restart of Redis goes unnoticed and a hang costs one timeout."""
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=MOST,
        timeout=timeout,
        decode_responses=True,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        health_check_interval=0,
    )
    return redis.Redis.from_pool(pool)
