"""What a session uses: CPU, memory, disk in the last hour, and how long its answers take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import render_template

from app.web.api import api
from app.web.charts import Chart, Series, stacked
from app.web.session.blueprint import session_blueprint
from app.web.words import size

blp = session_blueprint("resources")


@dataclass(frozen=True)
class Drawn:
    """A figure: what it is now, the most in the hour, and the hour."""

    name: str
    now: str
    most: str
    chart: Chart


def cores(value: float) -> str:
    """CPU in cores."""
    return f"{value:.2f} cores"


FIGURES: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("CPU", "cpu", cores),
    ("Memory", "memory_bytes", size),
    ("Disk", "disk_bytes", size),
)


@blp.get("/resources")
def resources(uuid: str) -> str:
    """The figures, for the overview."""
    return render_template("session/_resources.html", uuid=uuid, **resources_of(uuid))


def resources_of(uuid: str) -> dict[str, Any]:
    """The figures, and the answers' times."""
    told = api().get(f"/session/{uuid}/metrics")
    hour = told["hour"]
    drawn = [
        Drawn(
            name,
            words(told["now"][field]),
            words(max(each[field] for each in (told["now"], *hour))),
            stacked([Series(name, "active", [each[field] for each in hour])]),
        )
        for name, field, words in FIGURES
    ]
    return {"figures": drawn, "chat_ms": told["chat_ms"]}
