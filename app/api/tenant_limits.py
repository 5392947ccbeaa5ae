"""Concurrency limits of a tenant: waiting calls, event streams, and calls to its own agent, for each process.

Each kind has a limit for one session and for one user, and for one key if that key sets one. Calls with session tokens
are counted separately, so that no tenant keeps out the product's own calls about its sessions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import StrEnum
from types import MappingProxyType
from typing import cast

from flask import current_app
from prometheus_client import Gauge

from app.api.security import caller
from app.core.access.keyring import Principal
from app.core.limit_errors import (
    Owner,
    TooManyAgentCalls,
    TooManyAtOnce,
    TooManyStreams,
    TooManyTransfers,
    TooManyWaits,
)
from app.http.concurrency import ConcurrencyLimit
from app.process.settings import Settings

EXTENSION = "tenant_limits"


class Kind(StrEnum):
    """What is limited."""

    WAIT = "wait"
    STREAM = "stream"
    AGENT = "agent"


ERRORS: Mapping[Kind, type[TooManyAtOnce]] = {
    Kind.WAIT: TooManyWaits,
    Kind.STREAM: TooManyStreams,
    Kind.AGENT: TooManyAgentCalls,
}


class TenantLimits:
    """Counts what is under way, by kind and by session, user and key. `settings` has the limits; `shown` the gauges of
    the kinds that have one."""

    def __init__(self, settings: Settings, shown: Mapping[Kind, Gauge] = MappingProxyType({})) -> None:
        self._shown = shown
        self._per_session = settings.max_concurrent_per_session
        self._per_user = settings.max_concurrent_per_user
        self._transfers = settings.files_at_once
        self._limit = ConcurrencyLimit()

    @contextmanager
    def hold(self, kind: Kind, by: Principal, user_id: str | None, uuid: str) -> Iterator[None]:
        """Take a slot for the block: of the session and the user (if there is one), and the key (if it has a limit).
        Raises `TooManyAtOnce`, which names the one whose limit is reached."""
        tokens = " (session tokens)" if by.held else ""
        bounds = [(Owner.USER, f"{user_id}{tokens}", self._per_user)] if user_id is not None else []
        if uuid:
            bounds.append((Owner.SESSION, f"{uuid}{tokens}", self._per_session))
        if by.max_concurrent:
            bounds.append((Owner.KEY, by.name, by.max_concurrent))
        with ExitStack() as taken:
            for owner, name, most in bounds:
                counter = f"{kind} {owner} {name}"
                if not self._limit.acquire(counter, most):
                    raise ERRORS[kind](owner, name, most=most)
                taken.callback(self._limit.release, counter)
            if gauge := self._shown.get(kind):
                gauge.inc()
                taken.callback(gauge.dec)
            yield

    @contextmanager
    def hold_transfer(self, user_id: str) -> Iterator[None]:
        """Take a slot of the user for a long file. Raises `TooManyTransfers`."""
        counter = f"transfer {Owner.USER} {user_id}"
        if not self._limit.acquire(counter, self._transfers):
            raise TooManyTransfers(Owner.USER, user_id, most=self._transfers)
        try:
            yield
        finally:
            self._limit.release(counter)

    def held(self, kind: Kind, owner: str) -> int:
        """How many slots of this kind the owner (as `user ada`) holds."""
        return self._limit.taken(f"{kind} {owner}")


@contextmanager
def hold(kind: Kind, user_id: str | None, uuid: str = "") -> Iterator[None]:
    """Hold one of the caller's slots for the block."""
    with _limits().hold(kind, caller(), user_id, uuid):
        yield


def hold_transfer(user_id: str) -> AbstractContextManager[None]:
    """Hold one of the user's slots for a long file."""
    return _limits().hold_transfer(user_id)


def _limits() -> TenantLimits:
    return cast(TenantLimits, current_app.extensions[EXTENSION])
