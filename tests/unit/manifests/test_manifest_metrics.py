"""Where Prometheus finds each process, and where its processes count together."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.lib.procfile import MEASURED, SEVERAL
from tests.manifests import MANIFESTS, OVERLAYS, SYSTEM, WORKSPACE, WORKSPACES, Network, Object, render

PORT = 9102


@pytest.fixture(params=OVERLAYS)
def overlay(request: Any) -> tuple[Object, ...]:
    """All objects of each overlay in turn."""
    return render(MANIFESTS / "overlays" / request.param)


def containers(overlay: tuple[Object, ...]) -> dict[str, tuple[Any, Any]]:
    """By Deployment: its pod's spec and container."""
    specs = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in overlay if each["kind"] == "Deployment"
    }
    return {name: (spec, spec["containers"][0]) for name, spec in specs.items() if name in {"web", *MEASURED}}


def test_each_process_but_web_has_a_port_for_prometheus(overlay: tuple[Object, ...]) -> None:
    found = containers(overlay)
    assert found.keys() == {"web", *MEASURED}
    ports = {
        name: [port["containerPort"] for port in container.get("ports", ()) if port["name"] == "metrics"]
        for name, (_, container) in found.items()
    }
    assert ports == {"web": [], **dict.fromkeys(MEASURED, [PORT])}
    settings = next(
        each["data"] for each in overlay if each["kind"] == "ConfigMap" and "METRICS_PORT" in each.get("data", {})
    )
    assert settings["METRICS_PORT"] == str(PORT)


def test_programs_of_several_processes_count_in_memory(overlay: tuple[Object, ...]) -> None:
    for name, (spec, container) in containers(overlay).items():
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        folder = next((each["value"] for each in container["env"] if each["name"] == "PROMETHEUS_MULTIPROC_DIR"), None)
        if name in SEVERAL:
            assert folder is not None and folder.startswith(mounts["metrics"] + "/")
            assert {"name": "metrics", "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}} in spec["volumes"]
        else:
            assert (folder, mounts.get("metrics")) == (None, None)


def test_workspaces_reach_no_metrics(overlay: tuple[Object, ...]) -> None:
    network = Network(overlay)
    for name in MEASURED:
        assert not network.admits({"app.kubernetes.io/name": name}, SYSTEM, PORT, WORKSPACE, WORKSPACES)
