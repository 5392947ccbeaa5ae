"""How the kubelet learns that a process of the manager is ready, works, or hangs."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from app.process.settings import Settings
from tests.manifests import Object, pods, settings_of


def serves(container: Object) -> bool:
    """Whether somebody waits for its answers; a process shows its metrics beside its work."""
    return any(port["name"] != "metrics" for port in container.get("ports", ()))


def test_whatever_listens_is_probed(overlay):
    """A container with a port says when it is ready and when it is dead."""
    listening = {pod.name: pod.containers[0] for pod in pods(overlay).values() if serves(pod.containers[0])}

    assert set(listening) == {"web", "forward-auth", "gateway", "flower", "redis"}
    assert all({"readinessProbe", "livenessProbe"} <= set(each) for each in listening.values())
    for name in ("web", "forward-auth", "gateway"):
        assert listening[name]["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert listening[name]["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_whatever_does_not_listen_shows_that_it_works(overlay):
    """By the age of its heartbeat, as the process is told and as scripts/run counts it locally."""
    silent = {pod.name: pod.containers[0] for pod in pods(overlay).values() if not serves(pod.containers[0])}
    settings, limit = settings_of(overlay), Settings().heartbeat_limit

    assert set(silent) == {"worker", "sweeper", "backup-worker", "delivery-worker", "observer", "beat"}
    for name, container in silent.items():
        startup, liveness = container["startupProbe"], container["livenessProbe"]
        assert startup["exec"] == liveness["exec"], name
        assert f"${{HEARTBEAT_LIMIT:-{limit:.0f}}}" in liveness["exec"]["command"][-1]
        # Python takes seconds to start on a machine that is busy, and is then given what is left.
        assert startup["periodSeconds"] * startup["failureThreshold"] >= limit
        # Killed soon: what hangs does not end in order, and another one may have work waiting.
        assert liveness["terminationGracePeriodSeconds"] <= 10
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
    assert settings["HEARTBEAT_FILE"].startswith("/tmp/")


@pytest.mark.parametrize(("age", "alive"), [(0, True), (60, True), (100, False), (None, False)])
def test_a_probe_tells_a_process_that_works_from_one_that_hangs(dev, tmp_path, age, alive):
    """The command itself, as the kubelet runs it."""
    probe = pods(dev)["worker"].containers[0]["livenessProbe"]["exec"]["command"]
    file = tmp_path / "heartbeat"
    if age is not None:
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    environ = {"PATH": os.environ["PATH"], "HEARTBEAT_FILE": str(file)}
    done = subprocess.run(probe, env=environ, stderr=subprocess.DEVNULL, timeout=30, check=False)

    assert (done.returncode == 0) is alive
