"""The dashboards as Grafana reads them, and their queries as it sends them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scripts.monitoring.files import FOLDER

FILES = sorted((FOLDER / "common" / "dashboards").glob("*.json"))

OURS = re.compile(r"\b(?:sessions|gateway|http|forward_auth|worker|observer|beat)(?:_[a-z]+)*\b(?=[{\[) ])")
"""Names of this service's metrics, where a query has them."""

RECORDED = re.compile(r"\bsessions_(?:api|wake):[a-z]+:rate\w+")

CLUSTERS = re.compile(r"\b(?:container|kubelet)_[a-z_]+")
"""Metrics of cAdvisor and the kubelet."""


@dataclass(frozen=True)
class Query:
    """A query of a panel, as it is in the file."""

    dashboard: str
    panel: str
    expr: str

    def sent(self, variables: Mapping[str, str]) -> str:
        """With its variables replaced, as Grafana does before it sends it."""
        return re.sub(r"\$(__)?(\w+)", lambda found: variables.get(found[0], found[0]), self.expr)


VARIABLES = {"$namespace": "local", "$workspaces": "fresh-workspaces", "$__rate_interval": "1m"}


def dashboards() -> dict[str, dict[str, Any]]:
    """By the name of the file."""
    return {path.stem: json.loads(path.read_text()) for path in FILES}


def panels(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that draw something: all but the titles of the rows."""
    return [each for each in dashboard["panels"] if each["type"] != "row"]


def queries() -> Iterator[Query]:
    """Every query of every dashboard."""
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield Query(name, panel["title"], target["expr"])
