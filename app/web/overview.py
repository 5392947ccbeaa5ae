"""The overview: the service over time, and whether it is well now."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import Blueprint, render_template, request

from app.web.api import api
from app.web.charts import Chart, Series, bars, dots, stacked, weighted_median

blp = Blueprint("web_overview", __name__)

RANGES = {"1": "1 hour", "24": "24 hours", "168": "7 days", "720": "30 days"}
DEFAULT = "24"

STATES = (
    ("active", "active", ("active",)),
    ("starting", "busy", ("created", "waking")),
    ("sleeping", "calm", ("sleeping",)),
    ("failed", "bad", ("failed",)),
)
"""What the chart of sessions shows: a name, its tone, and the statuses it sums up."""


@dataclass(frozen=True)
class Drawn:
    """A chart with its title and what its values are in."""

    title: str
    unit: str
    chart: Chart
    series: tuple[Series, ...]


@blp.get("/overview")
def show() -> str:
    """The page."""
    return render_template("overview.html", **read())


@blp.get("/overview/figures")
def figures() -> str:
    """What the page asks for again while it is open."""
    return render_template("_overview.html", **read())


def read() -> dict[str, Any]:
    """What the overview shows."""
    hours = request.args.get("hours", DEFAULT)
    hours = hours if hours in RANGES else DEFAULT
    calls = api()
    history = calls.get("/overview/history", hours=hours)
    samples, interval = history["samples"], history["interval_seconds"]
    # An unhealthy service is an answer too.
    health, metrics = calls.call("GET", "/health", also=(503,)), calls.get("/metrics")
    return {
        "hours": hours,
        "ranges": RANGES,
        "health": health,
        "metrics": metrics,
        "silent": [each for each in calls.get("/processes")["processes"] if each["status"] == "silent"],
        "samples": len(samples),
        "from_": samples[0]["at"] if samples else None,
        "wakes": times_of("wake", samples),
        "creates": times_of("create", samples),
        "cost": sum(each["cost_dollars"] for each in samples),
        "saved": sum(each["saved_dollars"] for each in samples),
        "failures": failures_of(samples),
        "drawings": drawn(evenly(samples, interval), "minute" if interval == 60 else "hour"),
    }


def times_of(kind: str, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """How many starts of a kind there were, and about how long they took, in ms."""
    counts = [each[f"{kind}s"] for each in samples]
    names = {"p50": f"{kind}_p50_ms", "p95": f"{kind}_p95_ms"}
    found = {short: weighted_median([each[name] for each in samples], counts) for short, name in names.items()}
    return {"count": sum(counts), **found}


def failures_of(samples: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """Reasons of failures and how often each was seen, the most frequent first."""
    counted: Counter[str] = Counter()
    for each in samples:
        counted.update(each["failures"])
    return counted.most_common(8)


def evenly(samples: list[dict[str, Any]], interval: int) -> list[dict[str, Any]]:
    """The samples at even distances: an empty one where none was taken, as nothing ran then."""
    if not samples:
        return []
    begin = datetime.fromisoformat(samples[0]["at"])
    places = {round((datetime.fromisoformat(each["at"]) - begin).total_seconds() / interval): each for each in samples}
    return [places.get(place, {}) for place in range(max(places) + 1)]


def drawn(samples: list[dict[str, Any]], each_of: str) -> list[Drawn]:
    """The charts of samples, one for `each_of` "minute" or "hour"."""
    states = tuple(
        Series(name, tone, [float(sum(each.get("sessions", {}).get(one, 0) for one in statuses)) for each in samples])
        for name, tone, statuses in STATES
    )
    wakes, creates = (
        (
            Series("p95", "faint", [each.get(f"{kind}_p95_ms") for each in samples]),
            Series("p50", "accent", [each.get(f"{kind}_p50_ms") for each in samples]),
        )
        for kind in ("wake", "create")
    )
    dollars = (
        Series("saved", "ok", [each.get("saved_dollars") for each in samples]),
        Series("cost", "accent", [each.get("cost_dollars") for each in samples]),
    )
    return [
        Drawn("Sessions by state", "sessions", stacked(states), states),
        Drawn("Time to wake", "ms", dots(wakes), wakes),
        Drawn("Time to create", "ms", dots(creates), creates),
        Drawn(f"Cost a {each_of}, and what sleeping saved", "dollars", bars(dollars), dollars),
    ]
