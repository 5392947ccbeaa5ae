"""Token usage of the model: by session, and by user and day, which budgets limit.

Days are UTC. A day's count expires two days later, a session's 400 days after its last use.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import redis

from app.core.costs.prices import OTHER
from app.core.costs.usage import day_number
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.scripts import Script, flatten

DAY_KEPT = 172_800
"""s: two days, so that a count outlives its day in every time zone."""

ONCE_KEPT = 60
"""s a counted request is remembered: a count with a lost answer is repeated within two seconds, or never."""

SESSION_KEPT = 34_560_000
"""s: 400 days, so that a year's bill can be made."""


@dataclass(frozen=True)
class Tokens:
    """Tokens a model read (`prompt`) and wrote (`completion`); `estimated` of these were not counted by the provider
    but estimated from the text's length."""

    prompt: int = 0
    completion: int = 0
    estimated: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion


def day_of(now: float) -> str:
    """The day (UTC) of a moment, as `2026-11-20`."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"


def next_day(now: float) -> float:
    """When the next day begins (UTC), in seconds since the epoch: budgets start anew then."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + timedelta(days=1)).timestamp()


class TokenUsage:
    """Counts tokens. Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._spend = Script(client, "spend")

    @redis_errors
    def add(self, uuid: str, user_id: str, tokens: Tokens, now: float, model: str = OTHER) -> None:
        """Count the tokens of one request, and book them in the cost ledger under the name of `model`; only once, even
        when Redis' answer is lost."""
        self._spend(
            tokens=keys.TOKENS.format(uuid=uuid),
            user_tokens=keys.USER_TOKENS.format(user_id=user_id, day=day_of(now)),
            once=keys.SPENT.format(request=secrets.token_hex(8)),
            session=keys.SESSION.format(uuid=uuid),
            kept_of_session=SESSION_KEPT,
            kept_of_day=DAY_KEPT,
            kept_once=ONCE_KEPT,
            total=tokens.total,
            uuid=uuid,
            user_id=user_id,
            day=day_number(now),
            model=model,
            prompt=tokens.prompt,
            completion=tokens.completion,
            counts=flatten(vars(tokens)),
        )

    @redis_errors
    def of_session(self, uuid: str) -> Tokens:
        """All tokens of a session so far."""
        counts = self._redis.hgetall(keys.TOKENS.format(uuid=uuid))
        return Tokens(**{name: int(counts.get(name, 0)) for name in vars(Tokens())})

    @redis_errors
    def of_day(self, user_id: str, now: float) -> int:
        """The tokens of a user on the day of `now`."""
        return int(self._redis.get(keys.USER_TOKENS.format(user_id=user_id, day=day_of(now))) or 0)
