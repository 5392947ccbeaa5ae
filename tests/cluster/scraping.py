"""A Prometheus beside the cluster that is told what to scrape by the component `monitoring`.

Debian's Prometheus knows no Kubernetes. So the pods are found here, with the labels that `kubernetes_sd_configs` gives
to a pod (Prometheus' manual, `role: pod`); which of them are scraped, and as what, Prometheus itself then decides by
the component's own relabelling.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml  # type: ignore[import-untyped]

from scripts.lib import monitoring
from tests.cluster.product import SYSTEM, kubectl
from tests.cluster.prompting import restart
from tests.manifests import MANIFESTS, Object, of_kind
from tests.ports import free_port
from tests.waiting import wait_for
from workers.runtime.kubernetes.api_server import find_cluster

INTERVAL = "5s"
"""Of scrapes and rules: the component's 15 s would only make the test wait."""

SCRAPED = 180.0
"""s until the figures are there: the kubelet measures volumes once a minute, and cAdvisor a new container when it has
found it."""

STOP_LIMIT = 60.0
"""s until a Prometheus that was asked to end is killed."""

MAKE_SECRETS_LIMIT = 300.0
"""s; it calls kubectl some thirty times."""

META = "__meta_kubernetes"


class Prometheus:
    """A running one."""

    def __init__(self, url: str) -> None:
        self.url = url

    def asked(self, path: str, **parameters: str) -> Any:
        """The data of its answer; an expression that it can't read fails."""
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def found(self, expr: str) -> list[Any]:
        """The samples of the result that are numbers: a panel draws nothing for the others."""
        result = self.asked("query", query=expr)["result"]
        return [each for each in result if each["value"][1] != "NaN"]

    def targets(self) -> list[Any]:
        return list(self.asked("targets", state="active")["activeTargets"])

    def ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=5).ok
        except requests.ConnectionError:
            return False


@contextmanager
def prometheus(folder: Path, configuration: Mapping[str, Any]) -> Iterator[Prometheus]:
    """One with this configuration, on loopback of the cluster's network, until the block is done."""
    program = monitoring.program()
    if program is None:
        pytest.skip("there is no Prometheus here; it is in the Debian package prometheus")
    port = free_port()
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    command = [
        # It ends with the tests, however they end.
        *("setpriv", "--pdeathsig", "TERM", program),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            running = Prometheus(f"http://127.0.0.1:{port}")
            wait_for(
                lambda: running.ready() or process.poll() is not None,
                "Prometheus",
                (folder / "log").read_text,
                interval=0.2,
            )
            assert process.poll() is None, (folder / "log").read_text()
            yield running
        finally:
            process.terminate()
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_LIMIT)


WAYS = {"with the operator": "monitoring", "without it": "monitoring/plain"}
"""The component, by who reads it."""


@contextmanager
def scrape_key(objects: tuple[Object, ...]) -> Iterator[str]:
    """The key for Prometheus, made and told to web as the docs say it; web knows none afterwards."""
    secret = of_kind(objects, "Secret", SYSTEM)["scrape-key"]
    assert "api-keys" not in _data_of("manager"), "the entry would have to be added by hand"
    kubectl("create", "secret", "generic", secret["metadata"]["name"], namespace=SYSTEM)
    try:
        subprocess.run([MANIFESTS / "make-secrets"], check=True, capture_output=True, timeout=MAKE_SECRETS_LIMIT)
        restart("web")
        yield base64.b64decode(_data_of("scrape-key")["key"]).decode()
    finally:
        kubectl("patch", "secret", "manager", "--type=merge", "-p", '{"data": {"api-keys": null}}', namespace=SYSTEM)
        kubectl("delete", "secret", "scrape-key", "--ignore-not-found", namespace=SYSTEM)
        restart("web")


def _data_of(secret: str) -> Any:
    return json.loads(kubectl("get", "secret", secret, "-o", "json", namespace=SYSTEM)).get("data", {})


def configuration(folder: Path, objects: tuple[Object, ...], key: str) -> Object:
    """Prometheus' own, by the component among these objects: what it scrapes of the manager, its rules, and the node's
    figures."""
    rules = of_kind(objects, "PrometheusRule")
    if rules:
        files, jobs = {"rules.yaml": rules["sessions"]["spec"]}, jobs_of_the_operator(objects)
    else:
        data = of_kind(objects, "ConfigMap", SYSTEM)["sessions-prometheus"]["data"]
        files = {name: yaml.safe_load(text) for name, text in data.items()}
        jobs = files["scrape.yaml"]["scrape_configs"]
    for name, content in {"pods.json": targets(pods_as(None)), "rules.json": files["rules.yaml"]}.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "key").write_text(key)
    return {
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(folder / "rules.json")],
        "scrape_configs": [*(_found_in(folder, job) for job in jobs), *node_jobs()],
    }


def scraped_again(*running: Prometheus) -> None:
    """Until each target was scraped after now."""
    now = time.time()

    def late() -> list[str]:
        return [
            each["scrapeUrl"]
            for one in running
            for each in one.targets()
            if datetime.fromisoformat(each["lastScrape"]).timestamp() <= now
        ]

    wait_for(lambda: not late(), "every target to be scraped again", lambda: str(late()), interval=1.0)


def _found_in(folder: Path, job: Object) -> Object:
    """The job with the pods from a file and the key from another, and everything else as it was."""
    [discovery] = job["kubernetes_sd_configs"]
    assert discovery == {"role": "pod", "namespaces": {"names": [SYSTEM]}}
    rest = {name: value for name, value in job.items() if name not in ("kubernetes_sd_configs", "scrape_interval")}
    if "authorization" in rest:
        rest["authorization"] = {"type": rest["authorization"]["type"], "credentials_file": str(folder / "key")}
    return {**rest, "file_sd_configs": [{"files": [str(folder / "pods.json")]}]}


def pods_as(account: str | None) -> list[Object]:
    """The manager's pods, as an account may see them, or the administrator."""
    impersonated = [f"--as={account}"] if account else []
    return list(json.loads(kubectl("get", "pods", "-o", "json", *impersonated, namespace=SYSTEM))["items"])


def targets(pods: Iterable[Object]) -> list[Object]:
    """A target for each port of each container, in the form of `file_sd_configs`."""
    found = []
    for pod in pods:
        address = pod["status"].get("podIP")
        about = {
            f"{META}_namespace": pod["metadata"]["namespace"],
            f"{META}_pod_name": pod["metadata"]["name"],
            f"{META}_pod_phase": pod["status"]["phase"],
        }
        for name, value in pod["metadata"].get("labels", {}).items():
            about[f"{META}_pod_label_{_safe(name)}"] = value
            about[f"{META}_pod_labelpresent_{_safe(name)}"] = "true"
        for container in pod["spec"]["containers"] if address else []:
            for port in container.get("ports", []):
                more = {
                    f"{META}_pod_container_name": container["name"],
                    f"{META}_pod_container_port_name": port.get("name", ""),
                    f"{META}_pod_container_port_number": str(port["containerPort"]),
                }
                found.append({"targets": [f"{address}:{port['containerPort']}"], "labels": about | more})
    return found


def _safe(label: str) -> str:
    """As Prometheus writes the name of a label of Kubernetes."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def jobs_of_the_operator(objects: tuple[Object, ...]) -> list[Object]:
    """What the Prometheus Operator makes of the PodMonitors (its pkg/prometheus/promcfg.go)."""
    return [
        _job_of(monitor, endpoint, number)
        for monitor in of_kind(objects, "PodMonitor").values()
        for number, endpoint in enumerate(monitor["spec"]["podMetricsEndpoints"])
    ]


def _job_of(monitor: Object, endpoint: Object, number: int) -> Object:
    name = f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}"
    wanted = monitor["spec"]["selector"]
    assert wanted.keys() == {"matchLabels"}, "only these are carried over here"
    kept = [
        {
            "source_labels": [f"{META}_pod_label_{_safe(label)}", f"{META}_pod_labelpresent_{_safe(label)}"],
            "regex": f"({value});true",
            "action": "keep",
        }
        for label, value in wanted["matchLabels"].items()
    ]
    sources = {"namespace": "namespace", "container": "pod_container_name", "pod": "pod_name"}
    return {
        "job_name": f"podMonitor/{name}/{number}",
        "metrics_path": endpoint["path"],
        "scrape_timeout": INTERVAL,
        "kubernetes_sd_configs": [{"role": "pod", "namespaces": {"names": [monitor["metadata"]["namespace"]]}}],
        **({"authorization": endpoint["authorization"]} if "authorization" in endpoint else {}),
        "relabel_configs": [
            {"source_labels": [f"{META}_pod_phase"], "regex": "(Failed|Succeeded)", "action": "drop"},
            *kept,
            {"source_labels": [f"{META}_pod_container_port_name"], "regex": endpoint["port"], "action": "keep"},
            *({"source_labels": [f"{META}_{source}"], "target_label": label} for label, source in sources.items()),
            {"target_label": "job", "replacement": name},
            {"target_label": "endpoint", "replacement": endpoint["port"]},
            *({_with_underscores(key): value for key, value in rule.items()} for rule in endpoint["relabelings"]),
        ],
    }


def _with_underscores(name: str) -> str:
    """`sourceLabels` of the operator is Prometheus' `source_labels`."""
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)


def node_jobs() -> list[Object]:
    """The kubelet and its cAdvisor of each node, through the API server, as Prometheus' Helm chart does it."""
    cluster = find_cluster()
    scheme, _, server = cluster.host.partition("://")
    nodes = kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()
    return [
        {
            "job_name": f"{name}-{node}",
            "scheme": scheme,
            "honor_labels": True,
            "metrics_path": f"/api/v1/nodes/{node}/proxy/{path}",
            "tls_config": {
                "ca_file": cluster.ssl_ca_cert,
                "cert_file": cluster.cert_file,
                "key_file": cluster.key_file,
            },
            "static_configs": [{"targets": [server]}],
        }
        for name, path in (("kubelet", "metrics"), ("cadvisor", "metrics/cadvisor"))
        for node in nodes
    ]
