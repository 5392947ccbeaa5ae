"""What a tenant may hold of this process at a time: waiting calls, event streams, and calls to its own agent.

Each has bounds for one session and for one user, and for one key where that key sets one. What holders of session
tokens have is counted by itself, so that no tenant keeps the product's own calls about its sessions out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import cast

from flask import current_app

from app.api.security import Principal, caller
from app.places import Places
from app.problems import Problem
from app.settings import Settings

EXTENSION = "tenants_places"


class Kind(StrEnum):
    """What is held; the value is what it is called in an error."""

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


class Holding:
    """Counts what is held, by kind and by whose it is. `settings` has the bounds."""

    def __init__(self, settings: Settings) -> None:
        self._per_session = settings.held_per_session
        self._per_user = settings.held_per_user
        self._places = Places()

    @contextmanager
    def one(self, kind: Kind, by: Principal, user_id: str, uuid: str) -> Iterator[None]:
        """A place for the block, counted for the session (if it is about one), the user, and the key (if it has a
        bound). Raises a 429 that says whose places are all taken."""
        tokens = " (session tokens)" if by.held else ""
        bounds = [(f"user {user_id}{tokens}", self._per_user)]
        if uuid:
            bounds.append((f"session {uuid}{tokens}", self._per_session))
        if by.held_at_once:
            bounds.append((f"key {by.name}", by.held_at_once))
        with ExitStack() as taken:
            for whose, most in bounds:
                if not self._places.take(f"{kind} {whose}", most):
                    text = f"The {whose} has {most} {kind} here, as many as it may. {WAYS_OUT[kind]}"
                    raise Problem(429, CODES[kind], text, headers=RETRY_AFTER)
                taken.callback(self._places.give_back, f"{kind} {whose}")
            yield

    def held(self, kind: Kind, whose: str) -> int:
        """How many places of a kind are taken in that name."""
        return self._places.taken(f"{kind} {whose}")


@contextmanager
def place(kind: Kind, user_id: str, uuid: str = "") -> Iterator[None]:
    """A place of the caller's for the block."""
    with cast(Holding, current_app.extensions[EXTENSION]).one(kind, caller(), user_id, uuid):
        yield
