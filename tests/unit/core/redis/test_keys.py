"""The names of keys: a user id may hold what separates a name's parts, and yet no two users share a key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.redis import keys

OWNERS = (keys.USER_COSTS,)
"""No key is named so: others go on after it."""

OF_USERS = (
    *(each for each in vars(keys).values() if isinstance(each, str) and "{user_id}" in each and each not in OWNERS),
    keys.BOOKED.replace("{owner}", keys.USER_COSTS),
    keys.OPEN.replace("{owner}", keys.USER_COSTS),
)
MONTHS = ("2026-11", "2026-12")
PARTS = ("a", "2026-11", "20000", "open", "sessions", "terminated", "backups", "prompt_bytes", "auth0|a", "user")


def names(user_id: str) -> set[str]:
    return {name.format(user_id=user_id, month=month, day="20000") for name in OF_USERS for month in MONTHS}


@given(st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map(":".join), min_size=2, unique=True))
def test_no_two_users_share_a_key_and_each_has_all(users: list[str]) -> None:
    assert len(OF_USERS) >= 8
    monthly = [name for name in OF_USERS if "{month}" in name]
    of_each = [names(user_id) for user_id in users]
    assert {len(each) for each in of_each} == {len(OF_USERS) + len(monthly)}
    assert len(set.union(*of_each)) == sum(map(len, of_each))
