"""Where Prometheus finds each process, and where its processes count together."""

from __future__ import annotations

from scripts.lib.procfile import MEASURED, SEVERAL
from tests.manifests import SYSTEM, WORKSPACE, WORKSPACES, Network, Object, Pod, pods, settings_of

PORT = 9102


def measured(overlay: tuple[Object, ...]) -> dict[str, Pod]:
    return {name: pod for name, pod in pods(overlay).items() if name in {"web", *MEASURED}}


def test_each_process_but_web_has_a_port_for_prometheus(overlay: tuple[Object, ...]) -> None:
    found = measured(overlay)
    assert found.keys() == {"web", *MEASURED}
    ports = {
        name: [port["containerPort"] for port in pod.containers[0].get("ports", ()) if port["name"] == "metrics"]
        for name, pod in found.items()
    }
    assert ports == {"web": [], **dict.fromkeys(MEASURED, [PORT])}
    assert settings_of(overlay)["METRICS_PORT"] == str(PORT)


def test_programs_of_several_processes_count_in_memory(overlay: tuple[Object, ...]) -> None:
    for name, pod in measured(overlay).items():
        (container,) = pod.containers
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        folder = next((each["value"] for each in container["env"] if each["name"] == "PROMETHEUS_MULTIPROC_DIR"), None)
        if name in SEVERAL:
            assert folder is not None and folder.startswith(mounts["metrics"] + "/")
            assert {"name": "metrics", "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}} in pod.spec["volumes"]
        else:
            assert (folder, mounts.get("metrics")) == (None, None)


def test_workspaces_reach_no_metrics(network: Network) -> None:
    for name in MEASURED:
        assert not network.admits({"app.kubernetes.io/name": name}, SYSTEM, PORT, WORKSPACE, WORKSPACES)
