"""Which restore points stay."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.restore_points.retention import DAY, HOUR, WEEK, kept

TIMES = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.floats(0, 4e9), max_size=40)
COUNTS = st.tuples(*[st.integers(0, 6)] * 4)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


HOURS = {"a": at("2025-11-20T08:00:00"), "b": at("2025-11-20T08:59:59"), "c": at("2025-11-20T09:00:00")}
DAYS = {"a": at("2025-11-18T08:00:00"), "b": at("2025-11-19T08:00:00"), "c": at("2025-11-20T09:00:00")}
SUNDAY = at("2025-11-16T23:59:59")
WEEKS = {"sunday": SUNDAY, "monday": SUNDAY + 1, "later": SUNDAY + 2}


@pytest.mark.parametrize(
    ("points", "keep", "stay"),
    [
        ({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}, (3, 0, 0, 0), {"b", "c", "d"}),
        (HOURS, (0, 2, 0, 0), {"b", "c"}),
        # Hours without a point are not counted.
        (DAYS, (0, 3, 0, 0), {"a", "b", "c"}),
        (DAYS, (0, 2, 0, 0), {"b", "c"}),
        # Weeks begin on Monday.
        (WEEKS, (0, 0, 7, 0), {"sunday", "later"}),
        (WEEKS, (0, 0, 0, 4), {"sunday", "later"}),
        ({"sunday": SUNDAY, "saturday": SUNDAY - DAY}, (0, 0, 0, 4), {"sunday"}),
        ({}, (3, 24, 7, 4), set()),
        ({"a": 1.0}, (0, 0, 0, 0), set()),
    ],
)
def test_the_newest_stay_and_the_last_of_an_hour_a_day_and_a_week(
    points: dict[str, float], keep: tuple[int, int, int, int], stay: set[str]
) -> None:
    assert kept(points, keep) == stay


@given(TIMES, COUNTS)
def test_no_more_stay_than_the_rules_say_and_the_newest_does(
    points: dict[str, float], keep: tuple[int, int, int, int]
) -> None:
    stay = kept(points, keep)
    assert stay <= points.keys()
    assert len(stay) <= sum(keep)
    if points and any(keep):
        assert max(points, key=lambda each: (points[each], each)) in stay


@given(TIMES, COUNTS)
def test_who_goes_by_a_rule_never_comes_back_later(points: dict[str, float], keep: tuple[int, int, int, int]) -> None:
    """Asked again of those that stay, the answer is the same: nothing erodes without a new point."""
    stay = kept(points, keep)
    assert kept({each: points[each] for each in stay}, keep) == stay


def test_a_point_an_hour_for_two_months_leaves_the_hours_days_and_weeks() -> None:
    now = at("2025-11-20T08:30:00")
    points: dict[str, float] = {}
    for hour in range(24 * 60, -1, -1):
        points[str(hour)] = now - hour * HOUR
        stay = kept(points, (3, 24, 7, 4))
        points = {each: points[each] for each in stay}
    ages = sorted(int(each) for each in points)
    assert ages[:24] == list(range(24))
    assert len(ages) <= 3 + 24 + 7 + 4
    assert 2 * WEEK < max(ages) * HOUR < 4 * WEEK
