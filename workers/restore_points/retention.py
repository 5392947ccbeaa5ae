"""Which restore points stay: the newest ones, and the last one of each hour, day and week, for so many hours, days and
weeks as have one. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

HOUR, DAY, WEEK = 3_600, 86_400, 604_800

MONDAY = 4 * DAY
"""s from the epoch, a Thursday, to the first Monday after it, at which weeks begin."""


def kept(points: Mapping[str, float], keep: tuple[int, int, int, int]) -> set[str]:
    """The ids that stay, of points by when they were made (s since the epoch). `keep` counts the last, hourly, daily
    and weekly ones. Hours and days are those of UTC."""
    newest_first = sorted(points, key=lambda each: (points[each], each), reverse=True)
    last, *counts = keep
    stay = set(newest_first[:last])
    for count, length, start in zip(counts, (HOUR, DAY, WEEK), (0, 0, MONDAY), strict=True):
        seen: set[int] = set()
        for each in newest_first:
            period = math.floor((points[each] - start) / length)
            if period not in seen and len(seen) < count:
                seen.add(period)
                stay.add(each)
    return stay
