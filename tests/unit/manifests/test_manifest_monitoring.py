"""The monitoring component: what it adds, whom it lets in, and that the scrape finds every process."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
import yaml  # type: ignore[import-untyped]

from scripts.monitoring.alerts import ALERTS, PROCESSES
from tests import promtool
from tests.dashboards import dashboards
from tests.manifests import MANIFESTS, SYSTEM, WORKSPACE, WORKSPACES, Network, Object, of_kind, pods, render, selects
from tests.manifests import with_components as built

PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}
MONITORING = "monitoring"
METRICS = {name: 8000 if name == "web" else 9102 for name in PROCESSES}
"""The port on which each process shows its metrics."""

WAYS = ("monitoring", "monitoring/plain")
"""The component for the Prometheus Operator, and the one without it."""


@pytest.fixture(scope="module")
def each_way(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Object, ...]]:
    """All objects of the base, an ingress and each of the two."""
    return {way: built(tmp_path_factory.mktemp("objects"), "traefik", way) for way in WAYS}


@pytest.fixture(params=WAYS)
def objects(request, each_way: dict[str, tuple[Object, ...]]) -> tuple[Object, ...]:
    """Those of each in turn."""
    return each_way[request.param]


def test_prometheus_reaches_every_process_and_nothing_else_and_nobody_else_does(objects):
    """From the namespace `monitoring`; workspaces and others reach no port of metrics. Neither Redis, Flower, forward
    auth's answers nor the gateway's, which it does not need."""
    network, found = Network(objects), pods(objects)

    for name, port in METRICS.items():
        assert network.admits(found[name].labels, SYSTEM, port, PROMETHEUS, MONITORING), name
        assert not network.admits(found[name].labels, SYSTEM, port, WORKSPACE, WORKSPACES), name
        assert not network.admits(found[name].labels, SYSTEM, port, PROMETHEUS, "default"), name
    for name, port in (("redis", 6379), ("flower", 5555), ("forward-auth", 8002), ("gateway", 8001)):
        assert not network.admits(found[name].labels, SYSTEM, port, PROMETHEUS, MONITORING), name


@pytest.mark.slow
def test_another_namespace_is_a_patch(tmp_path):
    """As the component and the docs say it."""
    kustomization = {
        "resources": [os.path.relpath(MANIFESTS / "base", tmp_path.resolve())],
        "components": [os.path.relpath(MANIFESTS / "components" / "monitoring", tmp_path.resolve())],
        "patches": [
            {
                "target": {"kind": "NetworkPolicy", "name": "scrape"},
                "patch": "- op: replace\n  path: /spec/ingress/0/from/0/namespaceSelector/matchLabels\n"
                "  value: {kubernetes.io/metadata.name: observability}\n",
            },
            {
                "target": {"group": "monitoring.coreos.com"},
                "patch": "- op: add\n  path: /metadata/labels/release\n  value: kube-prometheus-stack\n",
            },
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    patched = render(tmp_path)
    network, found = Network(patched), pods(patched)

    assert network.admits(found["worker"].labels, SYSTEM, 9102, PROMETHEUS, "observability")
    assert not network.admits(found["worker"].labels, SYSTEM, 9102, PROMETHEUS, MONITORING)
    for kind in ("PodMonitor", "PrometheusRule"):
        for each in of_kind(patched, kind).values():
            assert each["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_gke_has_it_with_one_line_and_its_alerts_lead_to_the_address_of_the_values(tmp_path):
    """The line that the overlay offers, without its comment sign; and nothing else of the overlay differs."""
    folder = tmp_path / "manifests"
    shutil.copytree(MANIFESTS, folder)
    gke = folder / "overlays" / "gke"
    text = (gke / "kustomization.yaml").read_text()
    offered = "  # - ../../components/monitoring\n"
    assert text.count(offered) == 1
    (gke / "kustomization.yaml").write_text(text.replace(offered, offered.replace("# ", "")))
    values = yaml.safe_load((gke / "values.yaml").read_text())["data"]

    objects, before = render(gke), render(MANIFESTS / "overlays" / "gke")
    added = [each for each in objects if each not in before]
    [rule] = of_kind(objects, "PrometheusRule").values()
    urls = [each["annotations"]["runbook_url"] for each in alerts_of(rule["spec"]["groups"])]

    assert {each["kind"] for each in added} == {
        *("NetworkPolicy", "Secret", "ConfigMap", "PodMonitor", "PrometheusRule"),
    }
    assert urls == [f"{values['runbook']}#{each.name.lower()}" for each in ALERTS]


def test_the_key_has_no_value_until_it_is_made(objects):
    """manifests/make-secrets fills it."""
    assert of_kind(objects, "Secret", SYSTEM)["scrape-key"].keys().isdisjoint({"data", "stringData"})


def alerts_of(groups: list[Object]) -> list[Object]:
    """The alerts among the rules."""
    return [each for group in groups for each in group["rules"] if "alert" in each]


def test_grafanas_sidecar_finds_the_dashboards(objects):
    """Each whole, in a ConfigMap with its label and within the size that a ConfigMap may have."""
    found = of_kind(objects, "ConfigMap", SYSTEM)["sessions-dashboards"]

    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {name.removesuffix(".json"): json.loads(text) for name, text in found["data"].items()} == dashboards()
    assert sum(map(len, found["data"].values())) < 1_000_000


def test_the_scrape_finds_every_process(each_way):
    """By its labels and the name of its port; web alone is asked with a key, which is in the same namespace."""
    objects = each_way["monitoring"]
    monitors = of_kind(objects, "PodMonitor", SYSTEM)
    scraped: dict[str, list[str]] = {}
    for name, monitor in monitors.items():
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        for pod in pods(objects).values():
            ports = {each.get("name"): each["containerPort"] for each in pod.containers[0].get("ports", [])}
            if selects(monitor["spec"]["selector"], pod.labels) and endpoint["port"] in ports:
                assert ports[endpoint["port"]] == METRICS[pod.name]
                scraped.setdefault(pod.name, []).append(name)

    key = monitors["sessions-web"]["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"]
    assert scraped == {name: ["sessions-web" if name == "web" else "sessions"] for name in PROCESSES}
    assert "authorization" not in monitors["sessions"]["spec"]["podMetricsEndpoints"][0]
    assert key["name"] in of_kind(objects, "Secret", SYSTEM)


def test_the_scrape_without_the_operator_is_the_same(each_way):
    """The same ports, jobs and key; its Prometheus may ask for the pods of this namespace and for nothing else."""
    objects = each_way["monitoring/plain"]
    files = of_kind(objects, "ConfigMap", SYSTEM)["sessions-prometheus"]["data"]
    jobs = {each["job_name"]: each for each in yaml.safe_load(files["scrape.yaml"])["scrape_configs"]}
    kept = {
        name: re.compile(next(rule["regex"] for rule in each["relabel_configs"] if rule.get("action") == "keep"))
        for name, each in jobs.items()
    }
    found = {name: [port["name"] for port in pod.containers[0].get("ports", [])] for name, pod in pods(objects).items()}

    part = "workspace-session-manager"
    assert all(
        kept["sessions"].fullmatch(f"{part};{port}") for name in PROCESSES for port in found[name] if port != "http"
    )
    assert kept["sessions-web"].fullmatch(f"{part};web;http")
    assert [name for name, each in jobs.items() if "authorization" in each] == ["sessions-web"]
    # The operator leaves out pods that ended by itself.
    ended = {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Succeeded|Failed", "action": "drop"}
    assert all(ended in each["relabel_configs"] for each in jobs.values())
    assert of_kind(objects, "Role", SYSTEM)["scrape"]["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    ]
    assert set(files) == {"rules.yaml", "scrape.yaml"}
    assert of_kind(objects, "PodMonitor") == of_kind(objects, "PrometheusRule") == {}


def test_prometheus_can_read_the_scrape(tmp_path):
    """But for the discovery of pods, which Debian's Prometheus is built without."""
    config = yaml.safe_load((MANIFESTS / "components" / "monitoring" / "plain" / "scrape.yaml").read_text())
    for job in config["scrape_configs"]:
        del job["kubernetes_sd_configs"]
    (tmp_path / "scrape.yaml").write_text(yaml.safe_dump(config))

    done = promtool.run("check", "config", "--syntax-only", tmp_path / "scrape.yaml")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["pod-monitors.yaml", "plain/scrape.yaml"])
def test_the_job_is_the_name_of_the_process(file):
    """The rules rely on it. What the pod monitors would add as `endpoint` is a label of our own metrics."""
    text = (MANIFESTS / "components" / "monitoring" / file).read_text()
    named = text.count("__meta_kubernetes_pod_label_app_kubernetes_io_name]")

    assert "replacement: sessions-$1" in text
    assert named == text.count("sessions-$1")
    assert "plain" in file or text.count("action: labeldrop") == 2
