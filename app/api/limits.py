"""Rate limits: per client address and per key, in fixed windows that live in Redis.

Flask-Limiter decides when to count, what a breach is, and to count in memory while Redis is down. Two
limits a request and the values for their headers would cost it four round trips, and looking the limits
up as long as one more: the strategy below counts all in one, and `OneLimit` knows which limit holds.

That one round trip also brings the record of the session a request names (`g.session_hash`), because
waiting for Redis twice is most of what a short call costs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import redis
from flask import Flask, Response, g, request
from flask_limiter import Limiter
from flask_limiter._limits import RuntimeLimit
from flask_limiter._manager import LimitManager
from flask_limiter.constants import ExemptionScope
from limits import RateLimitItem, parse
from limits.storage import RedisStorage
from limits.strategies import STRATEGIES, FixedWindowRateLimiter

from app.api.security import CATEGORIES, Principal, check_rate
from app.problems import Problem
from app.sessions.core import Core
from app.sessions.errors import StateUnavailable
from app.sessions.keys import SESSION
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import EVEN_WHEN_FULL
from app.settings import Settings

STRATEGY = "joint-fixed-window"
KEY_PREFIX = f"rate:{STRATEGY}"
"""Names the strategy: counters of one are not readable by another, and switching must not fail on live keys."""

ENDPOINTS: Mapping[str, str] = {
    "sessions.create": "create",
    "backups.restore": "create",
    "sessions.wake": "wake",
    "sessions.scale_up": "wake",
    "messages.chat": "chat",
    "sessions.delete": "delete",
    "backups.delete": "delete",
}
"""Which endpoints count in a category of their own; all others count as `default`."""

EXEMPT = frozenset({"probes.livez", "probes.readyz", "return.again"})
"""Probes: an orchestrator that is refused restarts a healthy process. Where nginx leads all visitors, from anywhere."""

WITHOUT_REDIS = EXEMPT | {"system.health", "docs.openapi", "docs.page", "docs.asset", None}
"""The endpoints (None: no such path) that have an answer while Redis is down."""


@dataclass(frozen=True)
class Window:
    """Where the caller stands: `limit` requests a window, `remaining` in it, `reset` seconds until the next."""

    limit: int
    remaining: int
    reset: int


class SharedRedis(RedisStorage):
    """The limits' storage on the process' own connections, so that the same timeouts hold."""

    STORAGE_SCHEME = ["shared-redis"]

    def __init__(self, uri: str, connection_pool: redis.ConnectionPool, **options: Any) -> None:
        super().__init__("redis://", connection_pool=connection_pool, **options)

    def check(self) -> bool:
        """Whether Redis answers; asked once a request at most, for an answer may take the whole timeout."""
        if g.get("redis_down"):
            return False
        try:
            return bool(self.get_connection().ping())
        except redis.RedisError:
            g.redis_down = True
            return False


class JointFixedWindow(FixedWindowRateLimiter):
    """A fixed window counted under several names at once: a request passes when none of them is full.

    The names are the words of the first identifier after the prefix, as `counters` gives them.
    """

    def __init__(self, storage: Any) -> None:
        super().__init__(storage)
        self._script = None
        if isinstance(storage, RedisStorage):
            script = files("app.api").joinpath("lua", "count.lua").read_bytes()
            self._script = storage.get_connection().register_script(EVEN_WHEN_FULL.encode() + script)

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        prefix, names, category = identifiers
        keys = [item.key_for(prefix, name, category) for name in names.split()]
        used, left = max(self._count(keys, item.get_expiry(), cost))
        g.rate_window = Window(item.amount, max(0, item.amount - used), math.ceil(left))
        return used <= item.amount

    def _count(self, keys: list[str], expiry: int, cost: int) -> list[tuple[int, float]]:
        """Count in each window; gives (counted in it, seconds left of it) for each."""
        if self._script is None:
            counted = [self.storage.incr(key, expiry, amount=cost) for key in keys]
            return [(n, self.storage.get_expiry(key) - time.time()) for n, key in zip(counted, keys, strict=True)]
        uuid = (request.view_args or {}).get("uuid")
        record = SESSION.format(uuid=uuid) if uuid else ""
        try:
            # Of two requests that meet a Redis that is away at once, Flask-Limiter counts one in memory and raises what
            # the other met.
            with redis_errors():
                *flat, hashed = self._script(keys=[*keys, record], args=[expiry, cost])
        except (StateUnavailable, redis.RedisError):
            # Whoever would ask Redis next in this request would wait for it a second time.
            g.redis_down = True
            raise
        g.session_hash = dict(zip(hashed[::2], hashed[1::2], strict=True))
        return [(n, left / 1000) for n, left in zip(flat[::2], flat[1::2], strict=True)]


class OneLimit(LimitManager):
    """Finds the limit of a request: one for each category, or the caller's own. There are no others to
    look through, as Flask-Limiter's own manager would for each request."""

    def __init__(self, rates: Mapping[str, str]) -> None:
        super().__init__([], [], {}, {}, {}, {})
        self._rates = rates

    def resolve_limits(self, *_args: Any, **_kwargs: Any) -> tuple[list[RuntimeLimit], ...]:
        # The second list is of limits on the endpoint; the first would be compared with those already counted.
        name = category()
        return [], [runtime_limit(own_rate(name) or self._rates[name], name)]

    def exemption_scope(self, *_args: Any) -> ExemptionScope:
        return ExemptionScope.NONE


@lru_cache(maxsize=1024)
def runtime_limit(rate: str, name: str) -> RuntimeLimit:
    """The limit of `rate` on the category `name`. There are as many as keys have rates of their own."""
    return RuntimeLimit(parse(rate), counters, name, shared=True)


def register_limits(app: Flask, core: Core) -> None:
    """Count every request of `app` and refuse those above their limit."""
    STRATEGIES[STRATEGY] = JointFixedWindow
    limiter = Limiter(
        counters,
        strategy=STRATEGY,
        key_prefix=KEY_PREFIX,
        storage_uri="shared-redis://",
        storage_options={"connection_pool": core.redis.connection_pool},
        in_memory_fallback_enabled=True,
        request_identifier=lambda: request.endpoint or "unknown",
    )
    limiter.limit_manager = OneLimit(configured_rates(core.settings))
    limiter.request_filter(lambda: request.endpoint in EXEMPT)
    limiter.init_app(app)
    app.before_request(_spare_redis)
    app.after_request(_show_window)


def configured_rates(settings: Settings) -> dict[str, str]:
    """The settings' rate of each category; raises `SettingsError` for one that isn't a rate."""
    rates = {name: str(getattr(settings, f"rate_limit_{name}")) for name in CATEGORIES}
    for name, rate in rates.items():
        check_rate(f"RATE_LIMIT_{name.upper()}", rate)
    return rates


def category() -> str:
    """The category of the current request."""
    return ENDPOINTS.get(request.endpoint or "", "default")


def own_rate(name: str) -> str:
    """The rate the caller's key brings for a category, "" for none."""
    principal: Principal | None = g.principal
    return principal.limits.get(name, "") if principal is not None else ""


def counters() -> str:
    """Under which names the current request counts: its address and, with a valid key, the key; only
    the key when that has a rate of its own (a web backend calls for all its users from one address)."""
    address = f"ip:{request.remote_addr or 'local'}"
    principal: Principal | None = g.principal
    if principal is None:
        return address
    key = f"key:{principal.digest[:16]}"
    return key if own_rate(category()) else f"{address} {key}"


def _spare_redis() -> None:
    if g.get("redis_down") and request.endpoint not in WITHOUT_REDIS:
        text = "The state store can't be reached or did not answer in time."
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
