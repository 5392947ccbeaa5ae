"""What the model costs: tokens by session, and by user and day, which is what a budget is set on.

Days are UTC. A day's count goes by itself two days later, a session's when a year's bill can no longer be asked for.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import redis

from app.sessions import keys
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import script

DAY_KEPT = 172_800
"""s: two days, so that a day's count outlives the day in every time zone."""

ONCE_KEPT = 60
"""s a request is known that was counted: its count is repeated within a second or two, or never."""

SESSION_KEPT = 34_560_000
"""s: 400 days after the last use; a terminated session's count ends without anyone's help."""


@dataclass(frozen=True)
class Tokens:
    """Tokens a model read (`prompt`) and wrote (`completion`); `estimated` are those of both that no provider
    counted, but we by the length of the text."""

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
    """When the next day begins (UTC), in seconds since the epoch: the moment budgets begin anew."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + timedelta(days=1)).timestamp()


class Spending:
    """The counts. Every method raises `StateUnavailable` when Redis can't serve."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._spend = client.register_script(script("spend"))

    def add(self, uuid: str, user_id: str, tokens: Tokens, now: float) -> None:
        """Count what one request took; once, also when Redis' answer is lost."""
        session, user = keys.TOKENS.format(uuid=uuid), keys.USER_TOKENS.format(user_id=user_id, day=day_of(now))
        once = keys.SPENT.format(request=secrets.token_hex(8))
        counts = [text for pair in vars(tokens).items() for text in pair]
        with redis_errors():
            self._spend(keys=[session, user, once], args=[SESSION_KEPT, DAY_KEPT, ONCE_KEPT, tokens.total, *counts])

    def of_session(self, uuid: str) -> Tokens:
        """All a session's prompts took so far."""
        with redis_errors():
            counts = self._redis.hgetall(keys.TOKENS.format(uuid=uuid))
        return Tokens(**{name: int(counts.get(name, 0)) for name in vars(Tokens())})

    def of_day(self, user_id: str, now: float) -> int:
        """The tokens of a user on the day of `now`."""
        with redis_errors():
            return int(self._redis.get(keys.USER_TOKENS.format(user_id=user_id, day=day_of(now))) or 0)
