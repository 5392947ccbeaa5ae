"""The dashboards and the rules of manifests/components/monitoring, from the tables beside this file.

An alert's `runbook_url` is the path in this repository; an installation gives the address of its own copy
(docs/operations-monitoring.md, Where alerts lead to).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from scripts.monitoring import rules
from scripts.monitoring.panels import dashboard_json, load

FOLDER = Path(__file__).resolve().parents[2] / "manifests" / "components" / "monitoring"
DASHBOARDS = Path(__file__).resolve().parent / "dashboards"
MADE = "# Made by `python -m scripts.generate` from scripts/monitoring.\n"
WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def as_yaml(value: Mapping[str, Any]) -> str:
    return MADE + yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=WIDTH)


def as_json(dashboard: Mapping[str, Any]) -> str:
    """A line for each field and for each panel: a change of the file tells which panel it is of."""
    fields = (f"{json.dumps(name)}: {_several_lines(value)}" for name, value in dashboard.items())
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _several_lines(value: Any) -> str:
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"


def files() -> dict[Path, str]:
    """The text of each file."""
    made = {
        FOLDER / "common" / "dashboards" / f"{path.stem}.json": as_json(dashboard_json(load(path)))
        for path in DASHBOARDS.glob("*.yaml")
    }
    return made | {
        FOLDER / "prometheus-rule.yaml": as_yaml(rules.prometheus_rule()),
        FOLDER / "plain" / "rules.yaml": as_yaml(rules.rules_file()),
    }
