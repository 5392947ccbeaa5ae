"""Tokens are counted by session, and by user and day."""

from __future__ import annotations

import pytest
import redis

from app.core.prompts.token_usage import DAY_KEPT, Tokens, TokenUsage, day_of, next_day
from app.core.redis import keys

NOON = 1_763_640_000.0  # 2025-11-20T12:00:00Z
DAY = 86_400.0


@pytest.mark.parametrize(
    ("now", "day", "reset"),
    [
        (NOON, "2025-11-20", NOON + DAY / 2),
        (NOON + DAY / 2, "2025-11-21", NOON + DAY * 1.5),
        (NOON + DAY / 2 - 0.001, "2025-11-20", NOON + DAY / 2),
        (0.0, "1970-01-01", DAY),
    ],
)
def test_days_begin_at_midnight_utc(now, day, reset):
    """Whatever the machine's own time zone."""
    assert day_of(now) == day
    assert next_day(now) == reset


def test_counts_add_up_and_are_kept_apart(redis_client: redis.Redis) -> None:
    """A user's day is the sum of all sessions; the next day begins at nothing."""
    spending = TokenUsage(redis_client)
    spending.add("aaaa0000", "ada", Tokens(10, 2), NOON)
    spending.add("aaaa0000", "ada", Tokens(5, 1, estimated=6), NOON + 1)
    spending.add("bbbb0000", "ada", Tokens(100, 0), NOON)
    spending.add("cccc0000", "bob", Tokens(1, 1), NOON)
    assert spending.of_session("aaaa0000") == Tokens(15, 3, estimated=6)
    assert spending.of_day("ada", NOON) == 118
    assert spending.of_day("bob", NOON) == 2
    assert spending.of_day("ada", NOON + DAY) == 0
    assert spending.of_session("dddd0000") == Tokens()


def test_nothing_is_kept_for_ever(redis_client: redis.Redis) -> None:
    """Every key it writes expires by itself, but the service's total."""
    TokenUsage(redis_client).add("aaaa0000", "ada", Tokens(10, 2), NOON)
    names = set(redis_client.keys()) - {keys.TOTALS}
    assert len([name for name in names if not name.startswith(("ledger:", "costs:"))]) == 3
    assert all(redis_client.ttl(name) > 0 for name in names)
    assert redis_client.ttl(keys.USER_TOKENS.format(user_id="ada", day="2025-11-20")) <= DAY_KEPT
