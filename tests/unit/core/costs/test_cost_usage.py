"""Amounts by day and month, and what they cost."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.costs.prices import Prices
from app.core.costs.usage import (
    DAY,
    DailyUsage,
    Interval,
    bill,
    by_day,
    day_number,
    day_of_number,
    month_name,
    month_start,
    months_between,
    number_of,
    rounded,
    running_amounts,
)
from app.process.settings import Settings

MOMENTS = st.integers(0, 4_102_444_800)  # to 2100
PRICES = Prices.of(Settings())


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@given(since=MOMENTS, length=st.integers(0, 40_000_000), units=st.sampled_from([1, 1000]), rate=st.integers(1, 9_000))
def test_the_days_of_an_interval_add_up_to_it(since: int, length: int, units: int, rate: int) -> None:
    """And no day has more than 24 hours."""
    parts = by_day(since * units, since * units + length, units, rate)
    assert sum(parts.values()) == rate * length
    assert all(0 < part <= rate * DAY * units for part in parts.values())


@pytest.mark.parametrize(
    ("since", "until", "parts"),
    [
        ("2028-02-28T23:00", "2028-03-01T02:00", {"2028-02-28": 1, "2028-02-29": 24, "2028-03-01": 2}),
        ("2027-02-28T23:00", "2027-03-01T02:00", {"2027-02-28": 1, "2027-03-01": 2}),
        ("2026-12-31T20:00", "2027-01-01T04:00", {"2026-12-31": 4, "2027-01-01": 4}),
        ("2026-11-20T00:00", "2026-11-21T00:00", {"2026-11-20": 24}),
        ("2026-11-20T10:00", "2026-11-20T10:00", {}),
        ("2026-03-29T00:00", "2026-03-30T00:00", {"2026-03-29": 24}),
    ],
)
def test_days_begin_at_midnight_utc(since: str, until: str, parts: dict[str, int]) -> None:
    """Leap days, the turn of a year, and a day on which clocks change elsewhere."""
    found = by_day(int(at(since)), int(at(until)))
    assert {day_of_number(day).isoformat(): amount / 3600 for day, amount in found.items()} == parts


@given(day=st.dates(date(1970, 1, 1), date(2199, 12, 31)))
def test_days_and_months_are_numbered_as_in_the_calendar(day: date) -> None:
    number = number_of(day)
    assert day_of_number(number) == day
    assert month_name(number) == f"{day:%Y-%m}"
    assert day_of_number(month_start(month_name(number))) == day.replace(day=1)


@given(first=st.dates(date(2020, 1, 1), date(2035, 1, 1)), days=st.integers(0, 800))
def test_the_months_between_two_days_are_all_that_they_touch(first: date, days: int) -> None:
    touched = dict.fromkeys(f"{first + timedelta(days=n):%Y-%m}" for n in range(days + 1))
    assert months_between(number_of(first), number_of(first) + days) == list(touched)


@given(
    opened=st.lists(st.integers(0, 90 * DAY), max_size=8),
    now=st.integers(91 * DAY, 119 * DAY),
    kind=st.sampled_from(["c:small", "d:small:5120", "b", "r"]),
)
def test_sums_of_what_runs_on_say_as_much_as_its_intervals(opened: list[int], now: int, kind: str) -> None:
    """The running totals of owners have no intervals, only sums by the month of their beginning."""
    base = month_start("2026-01") * DAY
    units, rate = (1000, 1) if kind.startswith("c") else (1, 7)
    sums: Counter[str] = Counter()
    exact, of_month = Counter[str](), Counter[str]()
    month = month_name(day_number(base + now))
    for since in opened:
        began = base + since
        name = month_name(day_number(began))
        sums[f"n:{name}:{kind}"] += rate
        sums[f"s:{name}:{kind}"] += rate * (began - month_start(name) * DAY) * units
        for day, amount in Interval(kind, began * units, units, rate).amounts(base + now).items():
            exact[kind] += amount
            of_month[kind] += amount if month_name(day) == month else 0
    texts = {field: str(amount) for field, amount in sums.items()}
    assert +running_amounts(texts, base + now) == +exact
    assert +running_amounts(texts, base + now, month) == +of_month


def test_a_bill_by_hand() -> None:
    """An hour of a large one, a day of its disk, a GiB of backups for a month and two of restore points, and tokens."""
    amounts = {
        "c:large": 3_600_000,
        "d:large:5120": 86_400,
        "b": 1_048_576 * 730 * 3_600,
        "r": 2 * 1_048_576 * 730 * 3_600,
        "p:gpt-5-mini": 1_000_000,
        "t:gpt-5-mini": 500_000,
        "p:other": 2_000_000,
    }
    made = bill(amounts, PRICES)
    hour = Fraction("0.52") * Fraction("0.0445") + Fraction("1.0625") * Fraction("0.0049225")
    assert Fraction(made.dollars["compute"]) == hour
    assert rounded(made.dollars["disk"]) == round(24 * 5 * 0.10 / 730, 6)
    assert made.dollars["backups"] == Decimal("0.02")
    assert (made.dollars["points"], made.point_gib_hours) == (Decimal("0.04"), Decimal(2 * 730))
    assert made.dollars["tokens"] == Decimal("0.25") + 1 + Decimal("2.5")
    assert Fraction(made.saved) == 23 * hour
    assert made.compute_seconds == {"large": 3_600}
    assert made.tokens == {"gpt-5-mini": (1_000_000, 500_000), "other": (2_000_000, 0)}
    assert made.total == sum(made.dollars.values())


def test_nothing_costs_nothing() -> None:
    made = bill({}, PRICES)
    assert made.total == made.saved == 0


def test_a_session_that_never_slept_saved_nothing() -> None:
    """Even where its processes ran a moment longer than its volume existed."""
    assert bill({"c:small": 86_401_000, "d:small:5120": 86_400}, PRICES).saved == 0


def test_only_the_days_asked_for_count() -> None:
    days = DailyUsage()
    for day in range(10):
        days.add(day, "b", 1)
    days.add_open([Interval("c:small", 9 * DAY * 1000, 1000)], 9.5 * DAY)
    assert days.total(2, 4) == {"b": 3}
    assert days.total(9, 9) == {"b": 1, "c:small": DAY * 500}
    assert [day for day, _ in days.between(8, 20)] == [8, 9]
