"""What a session used and cost this month."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from app.web.api import ApiError, api
from app.web.session.blueprint import session_blueprint
from app.web.session.page import show

blp = session_blueprint("cost")

HEIGHT = 64.0
"""Of the chart, in its own units; a day is 10 wide."""


@dataclass(frozen=True)
class Bar:
    """A day of the chart: its place, and its height of `HEIGHT`."""

    day: str
    dollars: float
    x: int
    height: float

    @property
    def y(self) -> float:
        return HEIGHT - self.height


@blp.get("/cost")
def index(uuid: str) -> str:
    """This month's use and cost."""
    return show(uuid, "cost", _costs)


def _costs(uuid: str) -> dict[str, Any]:
    try:
        cost = api().get(f"/session/{uuid}/cost")
    except ApiError as error:
        if error.code != "session_not_found":
            raise
        # There is a session, or the page would say so: it has not used anything yet.
        return {"cost": None}
    return {"cost": cost, "bars": bars_of(cost), "used": used(cost)}


def used(cost: Mapping[str, Any]) -> dict[str, float]:
    """The amounts, of all sizes and models."""
    tokens = cost["tokens"].values()
    return {
        "seconds": sum(cost["compute_seconds"].values()),
        "prompt": sum(each["prompt"] for each in tokens),
        "completion": sum(each["completion"] for each in tokens),
    }


def bars_of(cost: Mapping[str, Any]) -> list[Bar]:
    """A bar for each day of the answer."""
    by_day = {each["day"]: float(each["dollars"]["total"]) for each in cost["days"]}
    highest = max(by_day.values(), default=0.0)
    return [
        Bar(day, by_day.get(day, 0.0), 10 * index, _height(by_day.get(day, 0.0), highest))
        for index, day in enumerate(_days(cost["from"], cost["to"]))
    ]


def _height(dollars: float, highest: float) -> float:
    return round(max(1.5, HEIGHT * dollars / highest), 1) if dollars else 0.5


def _days(first: str, last: str) -> Sequence[str]:
    begin = date.fromisoformat(first)
    count = (date.fromisoformat(last) - begin).days + 1
    return [(begin + timedelta(days=number)).isoformat() for number in range(count)]
