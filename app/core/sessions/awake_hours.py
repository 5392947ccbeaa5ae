"""Hours of the week in which a session is kept awake: `Mon-Fri 08:00-18:00, Sat 22:00-02:00`, in UTC."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY = 86_400

_DAY = f"({'|'.join(DAYS)})"
_TIME = "([01][0-9]|2[0-3]):([0-5][0-9])"
_SPAN = f"{_DAY}(?:-{_DAY})? {_TIME}-{_TIME}"
SPAN = re.compile(_SPAN)
HOURS = re.compile(f"({_SPAN}(, ?{_SPAN}){{0,2}})?")
"""Up to three spans; every match is valid."""


class BadHours(ValueError):
    """The text does not describe hours of the week."""


@dataclass(frozen=True)
class Span:
    """The same hours on some days: `days` from 0 for Monday, `start` and `end` in seconds from midnight (UTC). An end
    beyond 24 h is on the next day."""

    days: frozenset[int]
    start: int
    end: int


def read_hours(text: str) -> tuple[Span, ...]:
    """The spans in a text, which may be empty. Raises `BadHours`."""
    if not HOURS.fullmatch(text):
        raise BadHours(
            f"{text[:100]!r} must have the form Mon-Fri 08:00-18:00, Sat 22:00-02:00 (at most three spans, UTC)."
        )
    return tuple(_span(found) for found in SPAN.finditer(text))


def hours_end(spans: tuple[Span, ...], now: float) -> float:
    """When the hours around `now` end, 0 outside of all. Adjacent spans count as one, for a week at most."""
    end = now
    while end - now < 7 * DAY:
        later = max((_end_of(span, end) for span in spans), default=0.0)
        if later <= end:
            break
        end = later
    return end if end > now else 0.0


def _end_of(span: Span, moment: float) -> float:
    """When the span around `moment` ends, 0 outside of it; it may have begun the day before."""
    midnight = moment - moment % DAY
    for began in (midnight, midnight - DAY):
        if began + span.start <= moment < began + span.end and _weekday(began) in span.days:
            return began + span.end
    return 0.0


def _weekday(moment: float) -> int:
    return datetime.fromtimestamp(moment, UTC).weekday()


def _span(found: re.Match[str]) -> Span:
    first, last = DAYS.index(found[1]), DAYS.index(found[2] or found[1])
    start = int(found[3]) * 3_600 + int(found[4]) * 60
    end = int(found[5]) * 3_600 + int(found[6]) * 60
    days = frozenset((first + n) % 7 for n in range((last - first) % 7 + 1))
    return Span(days, start, end if end > start else end + DAY)
