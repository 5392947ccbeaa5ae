"""Which rate each call of the API has, and whose it is; app/http/rate_windows.py counts."""

from __future__ import annotations

from flask import Flask, g
from limits import RateLimitItem

from app.api.blueprint import route_rules
from app.core.access.addresses import ADDRESS
from app.core.access.keyring import CATEGORIES, Principal, check_rate
from app.core.composition import Core
from app.http.problems import Problem
from app.http.rate_windows import Window, counters, register_windows
from app.process.settings import Settings


def register_limits(app: Flask, core: Core) -> None:
    """Count every request of `app` and refuse those above their limit."""
    rates = configured_rates(core.settings)
    register_windows(
        app,
        core.redis.connection_pool,
        names=lambda: counters(g.principal, own_rate=bool(own_rate())),
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


def own_rate() -> str:
    """The rate that the caller's key has for the category, "" for none."""
    principal: Principal | None = g.principal
    return principal.limits.get(category(), "") if principal is not None else ""


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
    if g.get("redis_down") and not route_rules().without_redis:
        text = "The state store is unreachable or did not answer in time."
        raise Problem(503, "state_unavailable", text, headers={"Retry-After": "2"})
