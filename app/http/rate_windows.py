"""Counts requests per client address and per key, in fixed windows that live in Redis.

Flask-Limiter decides when to count, what a breach is, and when to count in memory because Redis is down. By itself it
would need four round trips for the two windows of a request and the values of its headers: the strategy below counts
in both windows at once.

That one round trip also brings the record of the session a request names (`g.session_hash`), because
waiting for Redis twice is most of what a short call costs. See docs/adr/0032.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
from flask import Flask, Response, g, request
from flask_limiter import ApplicationLimit, Limiter, RateLimitExceeded
from limits import RateLimitItem
from limits.storage import RedisStorage
from limits.strategies import STRATEGIES, FixedWindowRateLimiter

from app.core.access.addresses import ADDRESS, counted_as
from app.core.access.keyring import WORK, Principal
from app.core.errors import StateUnavailable
from app.core.limit_errors import Owner, RateExceeded
from app.core.redis.errors import redis_errors
from app.core.redis.keys import SESSION
from app.core.redis.scripts import Script
from app.http.named_session import named_session

STRATEGY = "joint-fixed-window"
KEY_PREFIX = f"rate:{STRATEGY}"
"""Names the strategy: one strategy can't read the counters of another, and switching must not fail on live keys."""


@dataclass(frozen=True)
class Window:
    """The fuller one of the caller's current windows, counted under `counter`: `limit` requests in all, `remaining` of
    them, `reset` s until the next window."""

    counter: str
    limit: int
    remaining: int
    reset: int


class SharedRedis(RedisStorage):
    """The limits' storage on the process's own connections, with their timeouts."""

    STORAGE_SCHEME = ["shared-redis"]

    def __init__(self, uri: str, connection_pool: redis.ConnectionPool, **options: Any) -> None:
        super().__init__("redis://", connection_pool=connection_pool, **options)

    def check(self) -> bool:
        """Whether Redis answers. Asked once a request at most: an answer may take the whole timeout."""
        if g.get("redis_down"):
            return False
        try:
            return bool(self.get_connection().ping())
        except redis.RedisError:
            g.redis_down = True
            return False


class JointFixedWindow(FixedWindowRateLimiter):
    """A fixed window counted under several names at once: a request passes when no window is full.

    The names are the words of the second identifier, as `counters` gives them.
    """

    def __init__(self, storage: Any) -> None:
        super().__init__(storage)
        self._script: Script | None = None
        if isinstance(storage, RedisStorage):
            self._script = Script(storage.get_connection(), "count")

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        prefix, names, category = identifiers
        counters = names.split()
        counted = self._count([item.key_for(prefix, name, category) for name in counters], item.get_expiry(), cost)
        (used, left), counter = max(zip(counted, counters, strict=True))
        g.rate_window = Window(counter, item.amount, max(0, item.amount - used), math.ceil(left))
        return used <= item.amount

    def _count(self, keys: list[str], expiry: int, cost: int) -> list[tuple[int, float]]:
        """Count in each window; returns (requests counted, seconds left) for each."""
        if self._script is None:
            counted = [self.storage.incr(key, expiry, amount=cost) for key in keys]
            return [(n, self.storage.get_expiry(key) - time.time()) for n, key in zip(counted, keys, strict=True)]
        uuid = named_session()
        record = SESSION.format(uuid=uuid) if uuid else ""
        try:
            # If two requests find Redis down at once, Flask-Limiter counts one in memory and raises the other's error.
            with redis_errors:
                *flat, hashed = self._script(record=record, windows=keys, seconds=expiry, cost=cost)
        except (StateUnavailable, redis.exceptions.NoPermissionError):
            # The rest of this request must not wait for Redis a second time.
            g.redis_down = True
            raise
        except redis.RedisError as error:
            # Redis is there, and this one request fails. Raised here, it would have Flask-Limiter count all in memory.
            g.uncounted = error
            return [(0, expiry) for _ in keys]
        g.session_hash = dict(zip(hashed[::2], hashed[1::2], strict=True))
        return [(n, left / 1000) for n, left in zip(flat[::2], flat[1::2], strict=True)]


def register_windows(
    app: Flask,
    pool: redis.ConnectionPool,
    *,
    names: Callable[[], str],
    rate: Callable[[], str],
    category: Callable[[], str],
    unlimited: Callable[[], bool],
) -> None:
    """Count the requests of `app` but those that are `unlimited`, under the `names` (see `counters`) and apart by
    `category`. One above its `rate` raises `RateLimitExceeded`; `rate_exceeded` makes our error of it."""
    STRATEGIES[STRATEGY] = JointFixedWindow
    limiter = Limiter(
        names,
        application_limits=[ApplicationLimit(rate, scope=lambda _: category())],
        strategy=STRATEGY,
        key_prefix=KEY_PREFIX,
        storage_uri="shared-redis://",
        storage_options={"connection_pool": pool},
        in_memory_fallback_enabled=True,
        request_identifier=lambda: request.endpoint or "unknown",
    )
    limiter.request_filter(unlimited)
    limiter.init_app(app)
    app.before_request(_fail_uncounted)
    app.after_request(_show_window)


def counters(principal: Principal | None, *, own_rate: bool, uuid: str = "") -> str:
    """The names the current request counts under: its address and, with a valid key, the key; only
    the key if that has a rate of its own (a web backend calls for all its users from one address). With a `uuid`, only
    the key in that session."""
    address = counted_as(request.remote_addr)
    if principal is None:
        return address
    key = f"key:{principal.digest[:16]}"
    if uuid:
        return f"{key}:{uuid}"
    return key if own_rate else f"{address} {key}"


def rate_exceeded(error: RateLimitExceeded, principal: Principal | None, category: str, setting: str) -> RateExceeded:
    """The error of a request of `principal` above its rate: whose window is full, and until when. `setting` is the
    rate's, "" for a rate of the key's own."""
    window: Window = g.rate_window
    if principal is None or window.counter.startswith(ADDRESS):
        owner, name = Owner.ADDRESS, ""
    elif category == WORK and (uuid := named_session()):
        owner, name = Owner.SESSION, uuid
    elif principal.held:
        owner, name = Owner.SESSION_TOKEN, ""
    else:
        owner, name = Owner.KEY, principal.name
    rate = str(error.limit.limit)
    return RateExceeded(owner, name, rate=rate, category=category, setting=setting, retry_after=window.reset)


def _fail_uncounted() -> None:
    if "uncounted" in g:
        raise g.uncounted


def _show_window(response: Response) -> Response:
    window: Window | None = g.get("rate_window")
    if window is not None:
        response.headers.add("RateLimit-Limit", str(window.limit))
        response.headers.add("RateLimit-Remaining", str(window.remaining))
        response.headers.add("RateLimit-Reset", str(window.reset))
    return response
