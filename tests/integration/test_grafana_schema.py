"""Grafana's own schema accepts the dashboards."""

from __future__ import annotations

import copy

import pytest

from tests.dashboards import FILES, dashboards
from tests.grafana_schema import faults


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_a_dashboard_has_the_types_of_grafana(name, tmp_path):
    """Compiled with `@grafana/schema`, the panels with the options of their own kind."""
    assert faults(dashboards()[name], tmp_path) == ""


def test_a_dashboard_that_grafana_would_not_understand_is_refused(tmp_path):
    """A misspelt field, a value that is none of those allowed, and one of the wrong type."""
    wrong = copy.deepcopy(dashboards()["sessions-lifecycle"])
    stat = next(each for each in wrong["panels"] if each["type"] == "stat")
    lines = next(each for each in wrong["panels"] if each["type"] == "timeseries")
    stat["options"]["colourMode"] = "value"
    lines["options"]["legend"]["placement"] = "middle"
    lines["fieldConfig"]["defaults"]["custom"]["drawStyle"] = "dots"
    wrong["title"] = 5

    said = faults(wrong, tmp_path)

    for each in ("colourMode", '"middle"', '"dots"', "'number' is not assignable"):
        assert each in said, said
