"""What the component `monitoring` needs of a real cluster: Prometheus' account finds the pods, and the node has the
figures that the dashboards ask for. That its objects are accepted is tested in test_manifests_on_cluster.py; which pods
are scraped, as what, and what each query returns, without a cluster (unit/manifests/test_manifest_monitoring.py,
e2e/test_monitoring.py)."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scripts.monitoring.alerts import ALERTS, PROCESSES
from tests.cluster.product import SYSTEM, WORKSPACES, kubectl
from tests.cluster.test_manifests_on_cluster import sent
from tests.conversation import Host, conversation
from tests.dashboards import CLUSTERS, queries
from tests.manifests import of_kind, with_components
from tests.waiting import wait_for

KUBELET, CADVISOR = "metrics", "metrics/cadvisor"
"""Where a node has its figures."""

MEASURED = 240.0
"""s until the node has a new pod's figures: the kubelet measures volumes once a minute."""


@pytest.fixture(scope="module")
def session(host: Host) -> Iterator[str]:
    """One that is awake."""
    with conversation(host) as chat:
        yield chat.uuid


def test_prometheus_own_account_finds_every_process(tmp_path: Path) -> None:
    """By the role of the component, as what discovery does; without it none, and never a Secret."""
    objects = with_components(tmp_path, "monitoring/plain")
    name = f"scrape-{secrets.token_hex(4)}"
    role, binding = (of_kind(objects, kind, SYSTEM)["scrape"] for kind in ("Role", "RoleBinding"))
    [subject] = binding["subjects"]
    account = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
    renamed = [
        {**role, "metadata": {**role["metadata"], "name": name}},
        {
            **binding,
            "metadata": {**binding["metadata"], "name": name},
            "roleRef": {**binding["roleRef"], "name": name},
        },
    ]

    def found() -> set[str]:
        pods = json.loads(kubectl("get", "pods", "-o", "json", f"--as={account}", namespace=SYSTEM))["items"]
        return {str(each["metadata"]["labels"].get("app.kubernetes.io/name")) for each in pods}

    try:
        sent(renamed)
        wait_for(lambda: found() >= set(PROCESSES), "the account's rights", interval=1.0)
        allowed = kubectl("auth", "can-i", "--list", f"--as={account}", namespace=SYSTEM)
        assert re.search(r"^pods\s.*\[get list watch\]$", allowed, re.MULTILINE)
        assert "secrets" not in allowed
    finally:
        kubectl("delete", "role,rolebinding", name, "--ignore-not-found", namespace=SYSTEM)


EXPRESSIONS = [*(each.expr for each in queries()), *(each.expr for each in ALERTS)]
ASKED_FOR = sorted({name for expr in EXPRESSIONS for name in CLUSTERS.findall(expr)})


@pytest.mark.parametrize("name", ASKED_FOR)
def test_the_node_shows_the_workspaces(session: str, name: str) -> None:
    """Each of its metrics that a query or an alert asks for, by the session's pod and container, or by its claim."""
    path, label = (CADVISOR, "pod") if name.startswith("container_") else (KUBELET, "persistentvolumeclaim")
    own = re.compile(rf"user-{session}(-.+)?")

    def shown() -> list[dict[str, str]]:
        return [
            labels
            for sample, labels in samples(path)
            if sample == name and labels.get("namespace") == WORKSPACES and own.fullmatch(labels.get(label, ""))
        ]

    found = wait_for(shown, f"{name} of {session}", seconds=MEASURED, interval=2.0)

    if label == "pod":
        assert {"editor", "agent"} <= {labels.get("container") for labels in found}


def samples(path: str) -> list[tuple[str, dict[str, str]]]:
    """The names and labels of the figures that the nodes have there."""
    nodes = kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()
    texts = [kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/{path}") for node in nodes]
    families = [family for text in texts for family in text_string_to_metric_families(text)]
    return [(each.name, each.labels) for family in families for each in family.samples]
