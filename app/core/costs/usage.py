"""Amounts of the cost ledger, and what they cost: pure functions of times, amounts and prices.

Amounts are whole numbers by kind (app/core/redis/lua/ledger.lua): `c:{size}` ms that processes ran, `d:{size}:{MiB}`
s that a volume existed, `b` KiB * s of backups, `r` KiB * s of restore points, `p:{model}` and `t:{model}` tokens read
and written. Days are UTC, counted from 1970-01-01.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from app.core.costs.prices import HOURS_PER_MONTH, Prices

DAY = 86_400
EPOCH = date(1970, 1, 1).toordinal()

Amounts = Mapping[str, int]

KINDS = ("compute", "disk", "backups", "points", "tokens")
"""What dollars are spent on."""

CENT_PARTS = Decimal("0.000001")
"""Dollars in answers are rounded to six places, half to even, each by itself from exact amounts."""

MIB_PER_GIB, KIB_PER_GIB = 1_024, 1_048_576
MS_PER_HOUR, S_PER_HOUR = 3_600_000, 3_600
MILLION = 1_000_000


def day_number(seconds: float) -> int:
    """The day of a moment."""
    return int(seconds // DAY)


def number_of(day: date) -> int:
    return day.toordinal() - EPOCH


def day_of_number(day: int) -> date:
    return date.fromordinal(day + EPOCH)


def month_name(day: int) -> str:
    """A day's month, as `2026-11`."""
    return f"{day_of_number(day):%Y-%m}"


def month_start(month: str) -> int:
    """A month's first day."""
    return number_of(date.fromisoformat(f"{month}-01"))


def months_between(first: int, last: int) -> list[str]:
    """The months of the days from `first` to `last`, in order."""
    found, day = [], first
    while day <= last:
        found.append(month_name(day))
        day = month_start(month_name(month_start(found[-1]) + 31))
    return found


def month_of(now: float) -> str:
    """The month (UTC) of a moment."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m}"


def ticks(seconds: float, units: int) -> int:
    """A moment in units of which a second has so many, as lua/ledger.lua counts them: milliseconds are rounded, seconds
    cut off."""
    return round(seconds * 1000) if units == 1000 else int(seconds)


def by_day(since: int, until: int, units: int = 1, rate: int = 1) -> dict[int, int]:
    """The time from `since` to `until`, in units of which a second has so many, times the `rate`, by day."""
    length, found = DAY * units, {}
    while since < until:
        day = since // length
        ends = min(until, (day + 1) * length)
        found[day] = rate * (ends - since)
        since = ends
    return found


@dataclass(frozen=True)
class Interval:
    """Something that began and costs still: `since` in units of which a second has so many."""

    kind: str
    since: int
    units: int = 1
    rate: int = 1

    def amounts(self, now: float) -> dict[int, int]:
        """What it costs until `now`, by day."""
        return by_day(self.since, ticks(now, self.units), self.units, self.rate)


class DailyUsage:
    """A session's amounts by day and kind."""

    def __init__(self) -> None:
        self._days: dict[int, Counter[str]] = {}

    def add(self, day: int, kind: str, amount: int) -> None:
        self._days.setdefault(day, Counter())[kind] += amount

    def add_open(self, intervals: Iterable[Interval], now: float) -> None:
        """Add what runs on, until now."""
        for each in intervals:
            for day, amount in each.amounts(now).items():
                self.add(day, each.kind, amount)

    def between(self, first: int, last: int) -> Iterator[tuple[int, Counter[str]]]:
        """The days from `first` to `last` that have amounts, in order."""
        return ((day, self._days[day]) for day in sorted(self._days) if first <= day <= last)

    def total(self, first: int, last: int) -> Counter[str]:
        """The sum of the days from `first` to `last`."""
        found: Counter[str] = Counter()
        for _, amounts in self.between(first, last):
            found.update(amounts)
        return found


@dataclass(frozen=True)
class Bill:
    """Amounts in people's units, and dollars, exact: `compute_seconds` by size, `tokens` (read, written) by model,
    `dollars` by kind (`KINDS`). `saved` is what sleeping saved: what processes that always ran would have cost more,
    for as long as the volume existed."""

    compute_seconds: Mapping[str, Decimal]
    disk_gib_hours: Decimal
    backup_gib_hours: Decimal
    point_gib_hours: Decimal
    tokens: Mapping[str, tuple[int, int]]
    dollars: Mapping[str, Decimal]
    saved: Decimal

    @property
    def total(self) -> Decimal:
        return sum(self.dollars.values(), Decimal(0))


def bill(amounts: Amounts, prices: Prices) -> Bill:
    """What these amounts cost."""
    ran: Counter[str] = Counter()
    existed: Counter[str] = Counter()
    read: Counter[str] = Counter()
    wrote: Counter[str] = Counter()
    disk_mib_s = 0
    for kind, amount in amounts.items():
        name, _, rest = kind.partition(":")
        if name == "c":
            ran[rest] += amount
        elif name == "d":
            size, _, mib = rest.partition(":")
            existed[size] += amount
            disk_mib_s += int(mib) * amount
        elif name == "p":
            read[rest] += amount
        elif name == "t":
            wrote[rest] += amount
    disk = Decimal(disk_mib_s) / (MIB_PER_GIB * S_PER_HOUR)
    backups, points = (Decimal(amounts.get(kind, 0)) / (KIB_PER_GIB * S_PER_HOUR) for kind in "br")
    hourly = {size: prices.compute_hour(size) for size in ran.keys() | existed.keys()}
    models = sorted(read.keys() | wrote.keys())
    asleep = {size: max(0, existed[size] * 1000 - ran[size]) for size in existed}
    return Bill(
        compute_seconds={size: Decimal(ran[size]) / 1000 for size in sorted(ran)},
        disk_gib_hours=disk,
        backup_gib_hours=backups,
        point_gib_hours=points,
        tokens={model: (read[model], wrote[model]) for model in models},
        dollars={
            "compute": sum((hourly[size] * ms / MS_PER_HOUR for size, ms in ran.items()), Decimal(0)),
            "disk": disk * prices.disk_gib_month / HOURS_PER_MONTH,
            "backups": backups * prices.backup_gib_month / HOURS_PER_MONTH,
            "points": points * prices.backup_gib_month / HOURS_PER_MONTH,
            "tokens": sum((_of_tokens(prices, model, read[model], wrote[model]) for model in models), Decimal(0)),
        },
        saved=sum((hourly[size] * ms / MS_PER_HOUR for size, ms in asleep.items()), Decimal(0)),
    )


def _of_tokens(prices: Prices, model: str, read: int, wrote: int) -> Decimal:
    price = prices.of_model(model)
    return (read * price.prompt + wrote * price.completion) / MILLION


def rounded(dollars: Decimal) -> float:
    """Dollars as answers show them."""
    return float(dollars.quantize(CENT_PARTS))


def running_amounts(open_sums: Mapping[str, str], now: float, month: str = "") -> Counter[str]:
    """What runs on has cost until `now`, by kind, from an owner's sums (`n:` and `s:` in lua/ledger.lua): in all, or
    since the beginning of `month`, which has begun and is the last one."""
    found: Counter[str] = Counter()
    for field, text in open_sums.items():
        sign, opened, kind = field.split(":", 2)
        if sign not in ("n", "s"):
            continue
        units = 1000 if kind.startswith("c:") else 1
        earlier = bool(month) and opened < month
        start = month_start(month if earlier else opened) * DAY * units
        if sign == "n":
            found[kind] += int(text) * (ticks(now, units) - start)
        elif not earlier:
            found[kind] -= int(text)
    return found
