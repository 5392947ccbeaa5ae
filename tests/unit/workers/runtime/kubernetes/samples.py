"""A session, and its objects as the API shows them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

from app.core.errors import Superseded
from app.core.sessions.model import Identity
from tests.unit.fake_api import LONG_AGO, FakeApi
from workers.runtime.base import BackupSummary, Observation
from workers.runtime.kubernetes.driver import KubernetesRuntime

MakeRuntime = Callable[..., KubernetesRuntime]

A = "aaaa0001"
NAME = f"user-{A}"
POD = f"{NAME}-x"
ADA = Identity(uuid=A, user_id="ada@example.com", created_at=1_763_625_600.0)
LABELS = {"app": "workspace", "session-uuid": A}
SECRET_KEY = "the-secret-key-of-these-unit-tests"
BACKUP = f"app-{A}-20260101-000000.zip"
SUMMARY = BackupSummary(created_at=1.0, size=2, files=3, content_bytes=4, sha256="5")

OTHERS_BACKUP = "app-bbbb0002-20260101-000000.zip"
OVERTAKEN = Mock(side_effect=Superseded("Intent 1 was overtaken by 2."))
"""What a worker learns when it asks whether its work is still wanted."""

KINDS = {"persistentvolumeclaims", "deployments", "secrets", "services", "ingresses"}
"""What a session consists of."""

ALL_KINDS = KINDS | {"scaledobjects"}
"""The same with KEDA."""


def replicas(api: FakeApi) -> int:
    return int(api.get("deployments", NAME)["spec"]["replicas"])


def secret_of(api: FakeApi, key: str = "token") -> str:
    return base64.b64decode(api.get("secrets", NAME)["data"][key]).decode()


def pod(status: dict[str, Any], name: str = "pod-1", uuid: str = A, **metadata: Any) -> dict[str, Any]:
    """A pod of a workspace, as the API shows it."""
    known = {"name": name, "uid": name, "labels": {**LABELS, "session-uuid": uuid}, "creationTimestamp": LONG_AGO}
    return {"metadata": known | metadata, "spec": {"nodeName": "node-1"}, "status": status}


def conditions(**values: str) -> list[dict[str, str]]:
    return [{"type": name, "status": value} for name, value in values.items()]


PLACED = {"conditions": conditions(PodScheduled="True")}
READY = {"conditions": conditions(PodScheduled="True", PodReadyToStartContainers="True", Ready="True")}
CRASHED = {
    "containerStatuses": [
        {
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "Error", "message": "one\n\x1b[31mtwo\x1b[0m\n"}},
        }
    ]
}

GOING = {"metadata": {"deletionTimestamp": LONG_AGO}}
"""What a deletion changes in an object that something keeps."""


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """The status of a pod whose container waits."""
    return {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}


def started(runtime: KubernetesRuntime) -> None:
    runtime.provision(ADA, 1)
    runtime.start(A, 2)


def observed(runtime: KubernetesRuntime) -> Observation:
    seen = runtime.observe(A)
    assert seen is not None
    return seen


def result(**told: Any) -> dict[str, Any]:
    """The state of a Job's container that has told this and ended."""
    return {"terminated": {"message": json.dumps(told), "exitCode": 0}}


def job_pod(
    api: FakeApi, state: dict[str, Any] | None = None, name: str = "", *, owned: bool = True, **metadata: Any
) -> None:
    """The pod of the one Job there is, as its controller would make it; it runs if no other state is given."""
    (job,) = api.named("jobs")
    made = api.get("jobs", job)
    uid = made["metadata"]["uid"]
    labels = {**made["spec"]["template"]["metadata"]["labels"], "batch.kubernetes.io/controller-uid": uid}
    owner: dict[str, Any] = {"ownerReferences": [{"uid": uid}]} if owned else {}
    status = {"containerStatuses": [{"state": state or {"running": {}}}]}
    api.put("pods", pod(status, name or f"pod-{uid}", labels=labels, **owner, **metadata))
