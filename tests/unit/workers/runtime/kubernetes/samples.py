"""A session, and its objects as the API shows them."""

from __future__ import annotations

from typing import Any

from app.core.sessions.model import Identity
from tests.unit.fake_api import FakeApi
from workers.runtime.kubernetes.driver import KubernetesRuntime

A = "aaaa0001"
NAME = f"user-{A}"
ADA = Identity(uuid=A, user_id="ada@example.com", created_at=1_763_625_600.0)
LABELS = {"app": "workspace", "session-uuid": A}
SECRET_KEY = "the-secret-key-of-these-unit-tests"

ALL_KINDS = {"persistentvolumeclaims", "deployments", "secrets", "services", "ingresses", "scaledobjects"}
"""What a session consists of, with KEDA."""


def replicas(api: FakeApi) -> int:
    return int(api.get("deployments", NAME)["spec"]["replicas"])


def pod(status: dict[str, Any], name: str = "pod-1", uuid: str = A) -> dict[str, Any]:
    """A pod of a workspace, as the API shows it."""
    labels = {**LABELS, "session-uuid": uuid}
    metadata = {"name": name, "uid": name, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {"nodeName": "node-1"}, "status": status}


def conditions(**values: str) -> list[dict[str, str]]:
    return [{"type": name, "status": value} for name, value in values.items()]


READY = {"conditions": conditions(PodScheduled="True", PodReadyToStartContainers="True", Ready="True")}
CRASHED = {
    "containerStatuses": [
        {
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "Error", "message": "one\n\x1b[31mtwo\x1b[0m\n"}},
        }
    ]
}


def started(runtime: KubernetesRuntime) -> None:
    runtime.provision(ADA, 1)
    runtime.start(A, 2)
