"""Rate limits: per client address and per key, in fixed windows that live in Redis.

Flask-Limiter decides when to count, what a breach is, and when to count in memory because Redis is down. By itself it
would need four round trips for the two windows of a request and the values of its headers: the strategy below counts
in both windows at once.

That one round trip also brings the record of the session a request names (`g.session_hash`), because
waiting for Redis twice is most of what a short call costs. See docs/adr/0032.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import redis
from flask import Flask, Response, g, request
from flask_limiter import ApplicationLimit, Limiter
from limits import RateLimitItem
from limits.storage import RedisStorage
from limits.strategies import STRATEGIES, FixedWindowRateLimiter

from app.api.blueprint import route_rules
from app.core.access.addresses import ADDRESS, counted_as
from app.core.access.keyring import CATEGORIES, Principal, check_rate
from app.core.composition import Core
from app.core.errors import StateUnavailable
from app.core.redis.errors import redis_errors
from app.core.redis.keys import SESSION
from app.core.redis.scripts import script_text, with_parts
from app.named_session import named_session
from app.problems import Problem
from app.settings import Settings

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
        self._script = None
        if isinstance(storage, RedisStorage):
            script = with_parts(script_text("count", "app.api"), "noted")
            self._script = storage.get_connection().register_script(script.encode())

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
            with redis_errors():
                *flat, hashed = self._script(keys=[*keys, record], args=[expiry, cost])
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


def register_limits(app: Flask, core: Core) -> None:
    """Count every request of `app` and refuse those above their limit."""
    STRATEGIES[STRATEGY] = JointFixedWindow
    rates = configured_rates(core.settings)
    limit = ApplicationLimit(lambda: own_rate() or rates[category()], scope=lambda _: category())
    limiter = Limiter(
        counters,
        application_limits=[limit],
        strategy=STRATEGY,
        key_prefix=KEY_PREFIX,
        storage_uri="shared-redis://",
        storage_options={"connection_pool": core.redis.connection_pool},
        in_memory_fallback_enabled=True,
        request_identifier=lambda: request.endpoint or "unknown",
    )
    limiter.request_filter(lambda: route_rules().rate is None)
    limiter.init_app(app)
    app.before_request(_spare_redis)
    app.after_request(_show_window)


def configured_rates(settings: Settings) -> dict[str, str]:
    """The settings' rate of each category; raises `SettingsError` for an invalid rate."""
    rates = {name: str(getattr(settings, f"rate_limit_{name}")) for name in CATEGORIES}
    for name, rate in rates.items():
        check_rate(f"RATE_LIMIT_{name.upper()}", rate)
    return rates


def category() -> str:
    """The category of the current request."""
    return route_rules().rate or "default"


def own_rate() -> str:
    """The rate that the caller's key has for the category, "" for none."""
    principal: Principal | None = g.principal
    return principal.limits.get(category(), "") if principal is not None else ""


def counters() -> str:
    """The names the current request counts under: its address and, with a valid key, the key; only
    the key if that has a rate of its own (a web backend calls for all its users from one address)."""
    address = counted_as(request.remote_addr)
    principal: Principal | None = g.principal
    if principal is None:
        return address
    key = f"key:{principal.digest[:16]}"
    return key if own_rate() else f"{address} {key}"


def refusal(limit: RateLimitItem) -> Problem:
    """The problem of a request above this limit: it says which limit it is, and whose."""
    window: Window = g.rate_window
    principal: Principal | None = g.principal
    if principal is None or window.counter.startswith(ADDRESS):
        of, name = "address", None
        who = "This address has"
    elif principal.held:
        of, name = "session_token", None
        who = "This session token has"
    else:
        of, name = "key", principal.name
        who = f"The key {principal.name} has"
    kind = category()
    rule = "a limit of its own" if own_rate() else f"RATE_LIMIT_{kind.upper()}"
    text = f"{who} used up its limit of {limit} for `{kind}` calls ({rule}). Try again in {max(1, window.reset)} s."
    told = {"category": kind, "rate": str(limit), "of": of, "name": name}
    return Problem(429, "rate_limited", text, more={"limit": told})


def _spare_redis() -> None:
    if "uncounted" in g:
        raise g.uncounted
    if g.get("redis_down") and not route_rules().without_redis:
        text = "The state store is unreachable or did not answer in time."
        raise Problem(503, "state_unavailable", text, headers={"Retry-After": "2"})


def _show_window(response: Response) -> Response:
    window: Window | None = g.get("rate_window")
    if window is not None:
        response.headers.add("RateLimit-Limit", str(window.limit))
        response.headers.add("RateLimit-Remaining", str(window.remaining))
        response.headers.add("RateLimit-Reset", str(window.reset))
        if response.status_code == 429:
            response.headers["Retry-After"] = str(max(1, window.reset))
    return response
