"""Charts as shapes of SVG, drawn by the server: pages need no script for them.

A chart's box is `WIDTH` by `HEIGHT`; a template stretches it over its place. Values that are None are gaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 600, 160
POINTS = 120
"""Points of a line at most: more can't be told apart, and would be most of the page."""

STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Series:
    """Values over time under one name; `tone` is a class of app.css."""

    name: str
    tone: str
    values: Sequence[float | None]

    @property
    def last(self) -> float | None:
        """The newest value that is none of the gaps."""
        return next((value for value in reversed(self.values) if value is not None), None)


@dataclass(frozen=True)
class Shape:
    """A path of SVG."""

    name: str
    tone: str
    path: str


@dataclass(frozen=True)
class Chart:
    """Shapes, and the value at the top of the box."""

    shapes: tuple[Shape, ...]
    top: float


def thin(values: Sequence[float | None], most: int = POINTS) -> list[float | None]:
    """Means of neighbours, `most` at the most; a mean leaves the gaps out."""
    size = -(-len(values) // most) or 1
    return [_mean(values[begin : begin + size]) for begin in range(0, len(values), size)]


def stacked(series: Iterable[Series]) -> Chart:
    """Areas on top of one another, the first at the bottom; a gap counts as 0."""
    thinned = [(each, [value or 0.0 for value in thin(each.values)]) for each in series]
    count = max((len(values) for _, values in thinned), default=0)
    sums = [0.0] * count
    layers: list[tuple[Series, list[float], list[float]]] = []
    for each, values in thinned:
        below, sums = sums, [low + value for low, value in zip(sums, values, strict=True)]
        layers.append((each, below, sums))
    top = _rounded(max(sums, default=0.0))
    shapes = (Shape(each.name, each.tone, _area(below, above, top)) for each, below, above in layers)
    return Chart(tuple(shapes), top)


def dots(series: Iterable[Series]) -> Chart:
    """A dot for each value: what happens now and then would make a line that says nothing."""
    thinned = [(each, thin(each.values)) for each in series]
    top = _rounded(max((value for _, values in thinned for value in values if value is not None), default=0.0))
    shapes = (Shape(each.name, each.tone, _dots(values, top)) for each, values in thinned)
    return Chart(tuple(shapes), top)


def bars(series: Iterable[Series]) -> Chart:
    """Bars of two or more series, each in front of the one before: give the greater one first."""
    thinned = [(each, thin(each.values, POINTS // 2)) for each in series]
    top = _rounded(max((value for _, values in thinned for value in values if value is not None), default=0.0))
    shapes = (Shape(each.name, each.tone, _bars(values, top)) for each, values in thinned)
    return Chart(tuple(shapes), top)


def weighted_median(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """The value in the middle, where each counts as often as its weight; None without any."""
    pairs = sorted(
        (value, weight) for value, weight in zip(values, weights, strict=True) if value is not None and weight
    )
    half, seen = sum(weight for _, weight in pairs) / 2, 0.0
    for value, weight in pairs:
        seen += weight
        if seen >= half:
            return value
    return None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _rounded(value: float) -> float:
    """The next round number, for the top of a box; 1 for nothing."""
    if value <= 0:
        return 1.0
    unit = 10.0
    while unit > value:
        unit /= 10
    while unit * 10 <= value:
        unit *= 10
    return next(step * unit for step in STEPS if step * unit >= value)


def _x(index: int, count: int) -> float:
    return round(index * WIDTH / max(1, count - 1), 1)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - value * HEIGHT / top, 1)


def _area(below: Sequence[float], above: Sequence[float], top: float) -> str:
    count = len(above)
    if not count:
        return ""
    there = [f"{_x(i, count)} {_y(value, top)}" for i, value in enumerate(above)]
    back = [f"{_x(i, count)} {_y(below[i], top)}" for i in reversed(range(count))]
    return f"M{'L'.join([*there, *back])}Z"


def _dots(values: Sequence[float | None], top: float) -> str:
    count = len(values)
    return "".join(f"M{_x(i, count)} {_y(value, top)}h0" for i, value in enumerate(values) if value is not None)


def _bars(values: Sequence[float | None], top: float) -> str:
    width = WIDTH / max(1, len(values))
    return "".join(
        f"M{round((i + 0.5) * width, 1)} {HEIGHT}V{_y(value, top)}" for i, value in enumerate(values) if value
    )
