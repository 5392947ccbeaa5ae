"""The rules of Prometheus, as a rules file and as the Prometheus Operator's object: the same groups in both."""

from __future__ import annotations

from typing import Any

from scripts.monitoring.alerts import ALERTS, Alert
from scripts.monitoring.objectives import OBJECTIVES, WINDOWS, Objective

Json = dict[str, Any]

LABELS = {"app.kubernetes.io/part-of": "workspace-session-manager"}

RUNBOOK = "docs/operations-monitoring.md"


def groups(runbooks: str = "") -> list[Json]:
    """The rule groups; `runbooks` is the address below which this repository's docs are, ending in a slash."""
    return [
        {
            "name": "sessions-objectives",
            "interval": "30s",
            "rules": [rule for each in OBJECTIVES for rule in _recordings(each)],
        },
        {"name": "sessions-alerts", "rules": [_alert(each, runbooks) for each in ALERTS]},
    ]


def rules_file(runbooks: str = "") -> Json:
    """What `rule_files` of a Prometheus without the operator name."""
    return {"groups": groups(runbooks)}


def prometheus_rule(runbooks: str = "") -> Json:
    """The PrometheusRule of the component."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "sessions", "namespace": "fresh-system", "labels": LABELS},
        "spec": {"groups": groups(runbooks)},
    }


def _recordings(objective: Objective) -> list[Json]:
    return [
        {"record": objective.recorded(what, window), "expr": expr.replace("$window", window)}
        for window in WINDOWS
        for what, expr in (("all", objective.all), ("bad", objective.bad))
    ]


def _alert(alert: Alert, runbooks: str) -> Json:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.lasting,
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "runbook_url": f"{runbooks}{RUNBOOK}#{alert.name.lower()}",
        },
    }
