"""The rules of Prometheus, as a rules file and as the Prometheus Operator's object: the same groups in both."""

from __future__ import annotations

from typing import Any

from scripts.monitoring.alerts import ALERTS, Alert
from scripts.monitoring.objectives import OBJECTIVES, WINDOWS, Objective

Json = dict[str, Any]

LABELS = {"app.kubernetes.io/part-of": "workspace-session-manager"}

RUNBOOK = "docs/operations-monitoring.md"
"""Where alerts lead to, unless they are told of an address."""


def groups(runbook: str = RUNBOOK) -> list[Json]:
    """The rule groups; `runbook` is the address of that page."""
    return [
        {
            "name": "sessions-objectives",
            "interval": "30s",
            "rules": [rule for each in OBJECTIVES for rule in _recordings(each)],
        },
        {"name": "sessions-alerts", "rules": [_alert(each, runbook) for each in ALERTS]},
    ]


def rules_file(runbook: str = RUNBOOK) -> Json:
    """What `rule_files` of a Prometheus without the operator name."""
    return {"groups": groups(runbook)}


def prometheus_rule() -> Json:
    """The PrometheusRule of the component."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "sessions", "namespace": "fresh-system", "labels": LABELS},
        "spec": {"groups": groups()},
    }


def _recordings(objective: Objective) -> list[Json]:
    return [
        {"record": objective.recorded(what, window), "expr": expr.replace("$window", window)}
        for window in WINDOWS
        for what, expr in (("all", objective.all), ("bad", objective.bad))
    ]


def _alert(alert: Alert, runbook: str) -> Json:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.lasting,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "runbook_url": f"{runbook}#{alert.name.lower()}",
        },
    }
