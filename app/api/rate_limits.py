"""Which rate each call of the API has, and whose it is; app/http/rate_windows.py counts."""

from __future__ import annotations

from flask import Flask, g
from flask_limiter import RateLimitExceeded

from app.api.blueprint import route_rules
from app.core.access.keyring import CATEGORIES, INPUT, WORK, Principal, check_rate
from app.core.composition import Core
from app.core.errors import StateUnavailable
from app.core.limit_errors import RateExceeded
from app.http.named_session import named_session
from app.http.rate_windows import counters, rate_exceeded, register_windows
from app.process.settings import Settings


def register_limits(app: Flask, core: Core) -> None:
    """Count every request of `app` and refuse those above their limit."""
    rates = configured_rates(core.settings)
    register_windows(
        app,
        core.redis.connection_pool,
        names=lambda: counters(g.principal, own_rate=bool(own_rate()), uuid=session_counted()),
        rate=lambda: own_rate() or rates[category()],
        category=category,
        unlimited=lambda: route_rules().rate is None,
    )
    app.before_request(_spare_redis)


def configured_rates(settings: Settings) -> dict[str, str]:
    """The settings' rate of each category; raises `SettingsError` for an invalid rate."""
    rates = {name: str(getattr(settings, f"rate_limit_{name}")) for name in CATEGORIES}
    for name, rate in rates.items():
        check_rate(f"RATE_LIMIT_{name.upper()}", rate)
    return rates


def category() -> str:
    """The category of the current request."""
    return route_rules().rate or "default"


def session_counted() -> str:
    """The session that the current request counts for, "" where all of a caller's count together."""
    return named_session() if category() in (WORK, INPUT) else ""


def own_rate() -> str:
    """The rate that the caller's key has for the category, "" for none."""
    principal: Principal | None = g.principal
    return principal.limits.get(category(), "") if principal is not None else ""


def refusal(error: RateLimitExceeded) -> RateExceeded:
    """The error of a request above its limit."""
    setting = "" if own_rate() else f"RATE_LIMIT_{category().upper()}"
    return rate_exceeded(error, g.principal, category(), setting)


def _spare_redis() -> None:
    if g.get("redis_down") and not route_rules().without_redis:
        raise StateUnavailable("The state store is unreachable or did not answer in time.")
