"""The dashboards: queries that Prometheus can read, of metrics that exist, and panels that explain themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from scripts.monitoring import files
from scripts.monitoring import panels as made
from tests import promtool
from tests.conftest import ROOT
from tests.dashboards import CLUSTERS, FILES, OURS, RECORDED, VARIABLES, dashboards, panels, queries
from tests.unit.scripts import expressions
from workers.runtime.kubernetes import names

METRICS = ROOT / "docs" / "metrics.md"

UNITS = {"s", "short", "percentunit", "bytes", "currencyUSD", "reqps", "ops", "cpm"}
"""Grafana's ids: packages/grafana-data/src/valueFormats/categories.ts."""

CLUSTERS_METRICS = {
    "container_memory_working_set_bytes",
    "container_cpu_usage_seconds_total",
    "container_cpu_cfs_periods_total",
    "container_cpu_cfs_throttled_periods_total",
    "container_oom_events_total",
    "kubelet_volume_stats_used_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "kubelet_volume_stats_inodes",
    "kubelet_volume_stats_inodes_used",
}
"""Of cAdvisor (its page "Monitoring cAdvisor with Prometheus") and the kubelet (Kubernetes' metrics reference)."""

ALLOWED_BY = {
    *("le", "kind", "tier", "phase", "status", "action", "decision", "process", "queue", "outcome", "task"),
    *("endpoint", "job", "reason", "model", "container", "pod", "persistentvolumeclaim"),
}
"""Labels that a query may keep. Of single workspaces only what the kubelet names, in the ten that use most."""

SUFFIXES = re.compile(r"_(?:bucket|count|sum)$")


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def dashboard(request):
    """Each dashboard in turn."""
    return dashboards()[request.param.stem]


def test_there_are_four():
    """Of the lifecycle, the workspaces, the cost and the model; each in a file of its name."""
    assert {name: each["uid"] for name, each in dashboards().items()} == {
        name: name for name in ("sessions-lifecycle", "sessions-workspaces", "sessions-cost", "sessions-model")
    }


def test_prometheus_can_read_every_query(tmp_path):
    """All of them as rules of one file, which promtool parses; no variable is left."""
    sent = [each.sent(VARIABLES) for each in queries()]
    rules = [{"record": f"q{number}", "expr": expr} for number, expr in enumerate(sent)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))

    done = promtool.run("check", "rules", file)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(sent)} rules found" in done.stdout
    # "$1" is a group of label_replace.
    assert [expr for expr in sent if re.search(r"\$(?!1\b)", expr)] == []


POD = 'namespace="fresh-workspaces",pod="user-{uuid}-7d9f8-x2x4z",container="{container}"'
CLAIM = 'namespace="fresh-workspaces",persistentvolumeclaim="user-{uuid}"'
CLUSTER = {
    **{
        f"{name}{{{POD.format(uuid=uuid, container=container)}}}": f"{most}+{most}x60"
        for name in sorted(CLUSTERS_METRICS)
        if name.startswith("container_")
        for uuid, most in (("abcd1234", 10), ("efgh5678", 20))
        for container in ("editor", "agent")
    },
    **{
        f"{name}{{{CLAIM.format(uuid=uuid)}}}": f"{95 if 'used' in name else 100}x60"
        for name in sorted(CLUSTERS_METRICS)
        if name.startswith("kubelet_")
        for uuid in ("abcd1234", "efgh5678")
    },
    **{f'sessions{{namespace="local",status="{name}"}}': "2x60" for name in ("active", "sleeping")},
    **{
        f'sessions_cost_dollars_total{{namespace="local",kind="{kind}",pod="{pod}"}}': "0+0.1x60"
        for kind in ("compute", "disk", "backups", "points", "tokens")
        for pod in ("web-1", "web-2")
    },
    'sessions_saved_dollars_total{namespace="local",pod="web-1"}': "0+0.3x60",
    'sessions_budget_refusals_total{namespace="local",pod="web-1"}': "0+1x60",
}
"""Two workspaces as cAdvisor and the kubelet show them, and what they cost, as two replicas of web show it."""


def evaluated(expected: Mapping[str, float], folder: Path) -> str:
    """What promtool says against these values of expressions, an hour after the series begin."""
    return expressions.refuted({(expr, "1h"): value for expr, value in expected.items()}, CLUSTER, "1m", folder)


@pytest.mark.parametrize("name", ["sessions-workspaces", "sessions-cost"])
def test_what_only_a_cluster_or_the_ledger_has_fills_its_dashboard(name, tmp_path):
    """Each query has data, with the labels as cAdvisor, the kubelet and web show them."""
    variables = VARIABLES | {"$__rate_interval": "5m"}
    sent = [each.sent(variables) for each in queries() if each.dashboard == name]

    assert evaluated({f"count({expr}) > bool 0": 1 for expr in sent}, tmp_path) == ""


def test_a_workspace_has_the_names_that_the_queries_ask_for():
    """Of its pod, its claim and its containers."""
    asked = [each.expr for each in queries() if CLUSTERS.search(each.expr)]

    assert names.workspace("abcd1234") == "user-abcd1234"
    assert {*re.findall(r'container=~"([^"]+)"', " ".join(asked))} == {f"{names.EDITOR}|{names.AGENT}"}


def test_a_workspace_is_shown_by_its_session(tmp_path):
    """From the name of its pod, or of its claim."""
    top = [
        each.sent(VARIABLES) for each in queries() if each.expr.startswith("topk") and "workspaces" in each.dashboard
    ]

    session = 'label_replace(vector(1), "uuid", "abcd1234", "", "")'
    assert len(top) == 4
    assert evaluated({f"count(({expr}) and on (uuid) {session})": 1 for expr in top}, tmp_path) == ""


def test_replicas_of_web_are_not_added_up(tmp_path):
    """Both show the same ledger: a tenth of a dollar a minute of each of five kinds is 30 dollars an hour."""
    [hourly] = [each.sent(VARIABLES) for each in queries() if each.panel == "Dollars an hour"]

    assert evaluated({f"round(sum({hourly}))": 30}, tmp_path) == ""


def undocumented(expr: str) -> list[str]:
    """The metrics of an expression that docs/metrics.md does not have."""
    documented = METRICS.read_text()
    ours = {SUFFIXES.sub("", name) for name in OURS.findall(RECORDED.sub("", expr))}
    return [name for name in ours if not re.search(rf"\b{name}\b", documented)]


def test_every_metric_of_a_query_or_a_rule_is_documented():
    """In docs/metrics.md, or it is one of the kubelet's, of the recording rules or of Prometheus itself. An alert on a
    metric that was renamed never fires."""
    rules = (files.FOLDER / "plain" / "rules.yaml").read_text()
    recorded = set(RECORDED.findall(rules))
    for query in queries():
        assert undocumented(query.expr) == [], query
        assert set(CLUSTERS.findall(query.expr)) <= CLUSTERS_METRICS, query
        assert set(RECORDED.findall(query.expr)) <= recorded, query
    for rule in (rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]):
        assert undocumented(rule["expr"]) == [], rule


def test_every_query_asks_for_the_chosen_namespace():
    """Else two installations would be added up. Alerts carry the namespace of what they are about, or none."""
    asked = re.compile(r'namespace="\$(namespace|workspaces)"')

    assert [each for each in queries() if not asked.search(each.expr) and "ALERTS" not in each.expr] == []


def test_no_query_keeps_a_label_of_a_user_or_session():
    """The kubelet's pod and claim are in the ten that use most, and nowhere else."""
    for query in queries():
        kept = {label.strip() for by in re.findall(r"by \(([^)]*)\)", query.expr) for label in by.split(",")}
        assert kept <= ALLOWED_BY, query
        if query.dashboard != "sessions-workspaces":
            assert kept & {"pod", "persistentvolumeclaim", "container"} == set(), query


def test_every_panel_explains_itself(dashboard):
    """A title, a sentence or two, a unit; titles are unlike one another."""
    drawn = panels(dashboard)

    assert len({each["title"] for each in drawn}) == len(drawn)
    for panel in drawn:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"], panel["title"]
        assert len(panel["title"]) <= 40, panel["title"]


def test_what_users_notice_comes_first(dashboard):
    """The first row; causes are below it."""
    assert dashboard["panels"][0]["type"] == "row"
    assert dashboard["panels"][0]["title"] in ("What users notice", "What is spent")


def test_data_source_and_namespace_are_chosen_at_the_top(dashboard):
    """And every panel and query uses that data source."""
    variables = [each["name"] for each in dashboard["templating"]["list"]]

    assert variables[:2] == ["datasource", "namespace"]
    for panel in panels(dashboard):
        assert {panel["datasource"]["uid"], *(each["datasource"]["uid"] for each in panel["targets"])} == {
            "${datasource}"
        }


def test_panels_lie_side_by_side_and_not_on_one_another(dashboard):
    """Within 24 columns."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= made.COLUMNS
        assert cells & taken == set(), panel["title"]
        taken |= cells


def test_ids_are_unlike_one_another(dashboard):
    """Grafana finds a panel by its id, and a query by its letter."""
    ids = [each["id"] for each in dashboard["panels"]]

    assert len(set(ids)) == len(ids)
    for panel in panels(dashboard):
        letters = [each["refId"] for each in panel["targets"]]
        assert len(set(letters)) == len(letters)


def test_limits_colour_a_value():
    """Green, yellow, red; the other way round where little is bad; one limit has no yellow."""

    def colours(*limits: float, low_is_bad: bool = False) -> list[tuple[str, float | None]]:
        panel = made.Panel("t", "d.", "s", {"": "up"}, limits=limits, low_is_bad=low_is_bad)
        dashboard = made.Dashboard("u", "t", "d", (made.Row("r", (panel,)),))
        steps = made.dashboard_json(dashboard)["panels"][1]["fieldConfig"]["defaults"]["thresholds"]["steps"]
        return [(each["color"], each["value"]) for each in steps]

    assert colours() == [("green", None)]
    assert colours(5) == [("green", None), ("red", 5)]
    assert colours(1, 10) == [("green", None), ("yellow", 1), ("red", 10)]
    assert colours(0.9, 0.99, low_is_bad=True) == [("red", None), ("yellow", 0.9), ("green", 0.99)]


def test_a_field_that_there_is_not_is_refused(tmp_path):
    """A misspelt one would be ignored without a word."""
    file = tmp_path / "x.yaml"
    file.write_text(
        "uid: x\ntitle: t\ndescription: d\nrows:\n  - title: r\n    panels:\n"
        "      - {title: p, description: d, unit: s, queries: {'': up}, colour: red}\n"
    )

    with pytest.raises(TypeError, match="colour"):
        made.load(file)
