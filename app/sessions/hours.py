"""Hours of the week in which a session is kept up: `Mon-Fri 08:00-18:00, Sat 10:00-14:00`, in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SPAN = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? +([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
DAY = 86_400
LONGEST = 64
"""Characters; a record keeps them."""


class BadHours(ValueError):
    """The text is not hours of the week; it says what is wrong."""


@dataclass(frozen=True)
class Span:
    """The same hours on some days: `days` from 0 for Monday, `start` and `end` in seconds of the day (UTC)."""

    days: frozenset[int]
    start: int
    end: int


def read_hours(text: str) -> tuple[Span, ...]:
    """The spans in a text, none in an empty one. Raises `BadHours`. Hours over midnight are two spans."""
    if len(text) > LONGEST:
        raise BadHours(f"At most {LONGEST} characters.")
    return tuple(_span(part) for part in text.lower().split(",") if part.strip())


def hours_end(spans: tuple[Span, ...], now: float) -> float:
    """When the hours that `now` is in end, 0 outside of all. Spans that follow one another are one, for a week at
    most."""
    end = now
    for _ in range(7 * len(spans)):
        later = max((_end_of(span, end) for span in spans), default=0.0)
        if later <= end or later - now > 7 * DAY:
            break
        end = later
    return end if end > now else 0.0


def _end_of(span: Span, moment: float) -> float:
    """When the span that holds at `moment` ends, 0 when it doesn't."""
    midnight = moment - moment % DAY
    inside = span.start <= moment - midnight < span.end
    return midnight + span.end if inside and datetime.fromtimestamp(moment, UTC).weekday() in span.days else 0.0


def _span(text: str) -> Span:
    found = SPAN.fullmatch(text.strip())
    if found is None or found[1] not in DAYS or (found[2] or found[1]) not in DAYS:
        raise BadHours(f"{text.strip()!r} is not of the form Mon-Fri 08:00-18:00.")
    first, last = DAYS.index(found[1]), DAYS.index(found[2] or found[1])
    start = int(found[3]) * 3_600 + int(found[4]) * 60
    end = int(found[5]) * 3_600 + int(found[6]) * 60
    if not start < end <= DAY or int(found[4]) > 59 or int(found[6]) > 59:
        raise BadHours(f"{text.strip()!r} does not end after it begins, on the same day.")
    return Span(frozenset((first + n) % 7 for n in range((last - first) % 7 + 1)), start, end)
