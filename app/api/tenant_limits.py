"""Concurrency limits of a tenant: waiting calls, event streams, and calls to its own agent, for each process.

Each kind has a limit for one session and for one user, and for one key if that key sets one. Calls with session tokens
are counted separately, so that no tenant keeps out the product's own calls about its sessions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from types import MappingProxyType
from typing import cast

from flask import current_app
from prometheus_client import Gauge

from app.api.security import caller
from app.core.access.keyring import Principal
from app.http.concurrency import ConcurrencyLimit
from app.http.problems import Problem
from app.process.settings import Settings

EXTENSION = "tenant_limits"


class Kind(StrEnum):
    """What is limited; errors use the value as its name."""

    WAIT = "waiting calls"
    STREAM = "event streams"
    AGENT = "calls to its agent"


CODES: Mapping[Kind, str] = {
    Kind.WAIT: "too_many_waits",
    Kind.STREAM: "too_many_streams",
    Kind.AGENT: "too_many_agent_calls",
}
WAYS_OUT: Mapping[Kind, str] = {
    Kind.WAIT: "Ask without waiting, with `Prefer: respond-async`, or try again later.",
    Kind.STREAM: "Close one, or try again later.",
    Kind.AGENT: "Try again later.",
}
RETRY_AFTER = {"Retry-After": "5"}


class TenantLimits:
    """Counts what is under way, by kind and by session, user and key. `settings` has the limits; `shown` the gauges of
    the kinds that have one."""

    def __init__(self, settings: Settings, shown: Mapping[Kind, Gauge] = MappingProxyType({})) -> None:
        self._shown = shown
        self._per_session = settings.held_per_session
        self._per_user = settings.held_per_user
        self._limit = ConcurrencyLimit()

    @contextmanager
    def hold(self, kind: Kind, by: Principal, user_id: str | None, uuid: str) -> Iterator[None]:
        """Take a slot for the block: of the session and the user (if there is one), and the key (if it has a limit).
        Raises a 429 that names the one whose limit is reached."""
        tokens = " (session tokens)" if by.held else ""
        bounds = [(f"user {user_id}{tokens}", self._per_user)] if user_id is not None else []
        if uuid:
            bounds.append((f"session {uuid}{tokens}", self._per_session))
        if by.held_at_once:
            bounds.append((f"key {by.name}", by.held_at_once))
        with ExitStack() as taken:
            for owner, most in bounds:
                if not self._limit.acquire(f"{kind} {owner}", most):
                    text = f"The {owner} has reached its limit of {most} {kind}. {WAYS_OUT[kind]}"
                    raise Problem(429, CODES[kind], text, headers=RETRY_AFTER)
                taken.callback(self._limit.release, f"{kind} {owner}")
            if gauge := self._shown.get(kind):
                gauge.inc()
                taken.callback(gauge.dec)
            yield

    def held(self, kind: Kind, owner: str) -> int:
        """How many slots of this kind the owner (as `user ada`) holds."""
        return self._limit.taken(f"{kind} {owner}")


@contextmanager
def hold(kind: Kind, user_id: str | None, uuid: str = "") -> Iterator[None]:
    """Hold one of the caller's slots for the block."""
    with cast(TenantLimits, current_app.extensions[EXTENSION]).hold(kind, caller(), user_id, uuid):
        yield
