"""What a Grafana dashboard is made of, and its JSON: rows of panels, each with the queries it draws.

Dashboards are written as the YAML files in `dashboards`; their fields are those of the classes below. The JSON is that
of `@grafana/schema`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

COLUMNS = 24
"""The width of a dashboard, in Grafana's units."""

HEIGHT = {"stat": 4, "timeseries": 8}

SCHEMA_VERSION = 39
"""Of Grafana 11; newer ones bring it up to date when they load it."""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """A panel. `unit` is one of Grafana's ids; `queries` are PromQL by the legend of their series, with `{{label}}`.

    `limits` colour a value: green at first, yellow and red from each limit on; the other way round if `low_is_bad`.
    `stacked` series make up a whole.
    """

    title: str
    description: str
    unit: str
    queries: Mapping[str, str]
    kind: Literal["stat", "timeseries"] = "timeseries"
    width: int = 8
    limits: tuple[float, ...] = ()
    low_is_bad: bool = False
    stacked: bool = False
    decimals: int | None = None


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of the dashboard: the values of a label."""

    name: str
    label: str
    query: str


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    since: str = "now-6h"


def load(path: Path) -> Dashboard:
    """The dashboard of a YAML file. Raises `TypeError` for a field that there is not, or one that is missing."""
    fields = yaml.safe_load(path.read_text())
    rows = tuple(Row(each["title"], tuple(_loaded(panel) for panel in each["panels"])) for each in fields.pop("rows"))
    variables = tuple(Variable(**each) for each in fields.pop("variables", ()))
    return Dashboard(**fields, rows=rows, variables=variables)


def _loaded(fields: Json) -> Panel:
    return Panel(**fields | {"limits": tuple(fields.get("limits", ()))})


NAMESPACE = Variable("namespace", "Manager's namespace", 'label_values(up{job=~"sessions-.+"}, namespace)')


def dashboard_json(dashboard: Dashboard) -> Json:
    """The dashboard as Grafana's sidecar and its import take it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["workspace-session-manager"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": dashboard.since, "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [_other_dashboards()],
        "templating": {"list": [_source(), *map(_variable, (NAMESPACE, *dashboard.variables))]},
        "panels": _laid_out(dashboard.rows),
    }


def _source() -> Json:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": variable.query, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
    }


def _other_dashboards() -> Json:
    return {
        "title": "Other dashboards",
        "type": "dashboards",
        "tags": ["workspace-session-manager"],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }


def _laid_out(rows: tuple[Row, ...]) -> list[Json]:
    """The panels from left to right and from top to bottom, below the title of their row."""
    panels: list[Json] = []
    y = 0
    for row in rows:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": [],
            }
        )
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            position = {"x": x, "y": y, "w": panel.width, "h": HEIGHT[panel.kind]}
            panels.append({"id": len(panels) + 1, "gridPos": position, **_panel(panel)})
            x, height = x + panel.width, max(height, HEIGHT[panel.kind])
        y += height
    return panels


def _panel(panel: Panel) -> Json:
    defaults: Json = {"unit": panel.unit, "min": 0, "color": {"mode": "palette-classic"}}
    if panel.kind == "stat":
        defaults["color"] = {"mode": "thresholds"}
        defaults["noValue"] = "none"
    else:
        defaults["custom"] = _lines(panel)
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    defaults["thresholds"] = {"mode": "absolute", "steps": _steps(panel)}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "targets": [
            _target(expr, legend, chr(ord("A") + n), panel.kind)
            for n, (legend, expr) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": STAT if panel.kind == "stat" else TIMESERIES,
    }


def _steps(panel: Panel) -> list[Json]:
    """A colour from each limit on, the first from everything below."""
    colours = ["red", "yellow", "green"] if panel.low_is_bad else ["green", "yellow", "red"]
    if len(panel.limits) == 1:
        del colours[1]
    steps = zip((None, *panel.limits), colours, strict=False)
    return [{"color": colour, "value": value} for value, colour in steps]


def _lines(panel: Panel) -> Json:
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.stacked else 0,
        "showPoints": "never",
        "stacking": {"group": "A", "mode": "normal" if panel.stacked else "none"},
        "thresholdsStyle": {"mode": "line" if panel.limits else "off"},
    }


def _target(expr: str, legend: str, ref: str, kind: str) -> Json:
    return {
        "refId": ref,
        "datasource": SOURCE,
        "expr": expr,
        "legendFormat": legend,
        "range": kind != "stat",
        "instant": kind == "stat",
    }


STAT: Json = {
    "orientation": "auto",
    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    "colorMode": "value",
    "graphMode": "none",
    "justifyMode": "auto",
    "percentChangeColorMode": "standard",
    "showPercentChange": False,
    "textMode": "auto",
    "wideLayout": True,
}

TIMESERIES: Json = {
    "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
    "tooltip": {"mode": "multi", "sort": "desc"},
}
