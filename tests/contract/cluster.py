"""A hand inside the workspaces of a real cluster: the one KUBECONFIG names, whatever it is."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis
from kubernetes import client
from kubernetes.stream import stream

from app.process.settings import Settings
from tests.waiting import wait_for
from workers.runtime.base import Runtime
from workers.runtime.kubernetes import names, objects, pods, status
from workers.runtime.kubernetes.api_server import ApiServer, find_cluster
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.driver import KubernetesRuntime

IMAGE = os.environ.get("WORKSPACE_IMAGE", "localhost/workspace:dev")
TIMEOUT = 30.0
"""s for one request of these tests."""

HAND = """
import base64, json, os, sys
path, content = sys.argv[1], sys.argv[2:]
os.makedirs(os.path.dirname(path), exist_ok=True)
if content:
    open(path, "wb").write(base64.b64decode(content[0]))
found = open(path, "rb").read() if os.path.exists(path) else None
answer = json.dumps(None if found is None else base64.b64encode(found).decode())
open("/dev/termination-log", "w").write(answer)
"""
"""What the pod that is our hand runs: writes the file if it is given a content, and shows it."""


@contextmanager
def own_namespace(storage_class: str = "", backup_size: str = "1Gi", folder: Path | None = None) -> Iterator[str]:
    """A namespace that takes restricted pods only, as the workspaces' does, with a claim for backups in it: of that
    class and size, or of that folder of the node, which is this machine."""
    core = client.CoreV1Api(client.ApiClient(find_cluster()))
    name = f"contract-{secrets.token_hex(4)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = client.V1ObjectMeta(name=name, labels=labels)
    core.create_namespace(client.V1Namespace(metadata=metadata), _request_timeout=TIMEOUT)
    try:
        spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": backup_size}}}
        if storage_class:
            spec["storageClassName"] = storage_class
        if folder:
            core.create_persistent_volume(folder_volume(name, folder), _request_timeout=TIMEOUT)
            spec |= {"storageClassName": "", "volumeName": name}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "backups"}, "spec": spec}
        ApiServer(name, TIMEOUT).create("persistentvolumeclaims", claim)
        yield name
    finally:
        core.delete_namespace(name, _request_timeout=TIMEOUT)
        if folder:
            core.delete_persistent_volume(name, _request_timeout=TIMEOUT)


def folder_volume(name: str, folder: Path) -> Any:
    """A volume that is a folder of the node."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "hostPath": {"path": str(folder), "type": "Directory"},
        },
    }


def settings_for(settings: Settings, namespace: str) -> Settings:
    """`settings` for workspaces in that namespace."""
    return replace(
        settings,
        runtime="kubernetes",
        workspace_namespace=namespace,
        workspace_domain=f"{namespace}.localhost",
        workspace_image=IMAGE,
        backup_url="file:///backups",
        stop_grace=5.0,
    )


class KubernetesHarness:
    """See `tests.contract.runtimes.Harness`."""

    def __init__(self, settings: Settings, redis_client: redis.Redis, namespace: str) -> None:
        self.settings = settings_for(settings, namespace)
        self.namespace = namespace
        self.client = redis_client
        self.cluster = ApiServer(namespace, TIMEOUT)
        self.runtime: Runtime = KubernetesRuntime(self.settings, redis_client, self.cluster)

    def again(self) -> Runtime:
        return KubernetesRuntime(self.settings, self.client)

    def write(self, uuid: str, name: str, content: bytes) -> None:
        self._hand(uuid, name, base64.b64encode(content).decode())

    def read(self, uuid: str, name: str) -> bytes | None:
        found = json.loads(self._hand(uuid, name))
        return None if found is None else base64.b64decode(found)

    def leftovers(self) -> list[str]:
        """Jobs, and pods that run. What one of them left on a volume, tests/cluster/test_backups.py looks for."""
        selector = f"{names.APP_LABEL}={names.BACKUP}"
        running = [pod for pod in self.cluster.list("pods", selector)[0] if pod["status"].get("phase") == "Running"]
        return [each["metadata"]["name"] for each in [*self.cluster.list("jobs", selector)[0], *running]]

    def answer(self, uuid: str) -> None:
        """It does so by itself."""

    def crash(self, uuid: str) -> None:
        """The first time Kubernetes starts it again at once: only one that keeps dying has failed."""
        core = client.CoreV1Api(client.ApiClient(find_cluster()))

        def dead() -> bool:
            pods, _ = self.cluster.list("pods", names.selector(uuid))
            if any(status.pod_problem(pod) for pod in pods):
                return True
            for pod in pods:
                if status.pod_view(pod).ready:
                    self._kill(core, pod["metadata"]["name"], names.EDITOR)
            return False

        wait_for(dead, "the editor stays dead", interval=0.2)

    def leads_to(self, uuid: str, port: int) -> bool:
        found = self.cluster.get("ingresses", names.ports(uuid))
        rules = found["spec"]["rules"] if found else []
        return self.settings.workspace_host(uuid, port) in [each["host"] for each in rules]

    def agent_address(self, uuid: str) -> str:
        seen = self.runtime.observe(uuid)
        return seen.agent if seen else ""

    def agent_life(self, uuid: str) -> object:
        (pod,) = self.cluster.list("pods", names.selector(uuid))[0]
        return next(
            each.get("containerID") for each in pod["status"]["containerStatuses"] if each["name"] == names.AGENT
        )

    def crash_agent(self, uuid: str) -> None:
        (pod,) = self.cluster.list("pods", names.selector(uuid))[0]
        self._kill(client.CoreV1Api(client.ApiClient(find_cluster())), pod["metadata"]["name"], names.AGENT)

    def _kill(self, core: client.CoreV1Api, pod: str, container: str) -> None:
        try:
            stream(
                core.connect_get_namespaced_pod_exec,
                pod,
                self.namespace,
                container=container,
                command=["pkill", "-KILL", "-P", "1"],
                stdout=True,
                stderr=True,
                _request_timeout=TIMEOUT,
            )
        except client.ApiException:
            # It is between two lives.
            return

    def _hand(self, uuid: str, name: str, *content: str) -> str:
        return self.run(uuid, HAND, f"{pods.FILES}/{name}", *content)

    def run(self, uuid: str, source: str, *arguments: str, backups: bool = False) -> str:
        """Run that Python in a pod beside the workspace's, whose volume may be in use on that node, and show what it
        left in its termination message. With `backups` it sees them too."""
        pod = f"hand-{secrets.token_hex(4)}"
        self.cluster.create("pods", self._pod(pod, uuid, ["python3", "-c", source, *arguments], backups))
        answer: list[str] = []

        def done() -> bool:
            seen = self.cluster.get("pods", pod)
            assert seen is not None
            for each in seen["status"].get("containerStatuses") or []:
                if "terminated" in each["state"]:
                    assert each["state"]["terminated"]["exitCode"] == 0
                    answer.append(each["state"]["terminated"].get("message", ""))
            return bool(answer)

        wait_for(done, "the hand to end", interval=0.1)
        self.cluster.delete("pods", pod)
        wait_for(lambda: self.cluster.get("pods", pod) is None, "the hand to be gone", interval=0.1)
        return answer[0]

    def _pod(self, name: str, uuid: str, command: list[str], backups: bool) -> dict[str, Any]:
        """A pod as the workspace's own, but for what it runs."""
        identity = objects.Identity(uuid=uuid, user_id="hand", created_at=0.0)
        spec = objects.pod_template(identity, KubernetesConfig.of(self.settings))["spec"]
        (editor,) = (each for each in spec["containers"] if each["name"] == names.EDITOR)
        container = dict(editor, command=command)
        for unneeded in ("readinessProbe", "env", "ports"):
            del container[unneeded]
        volumes = [each for each in spec["volumes"] if "secret" not in each]
        there = {each["name"] for each in volumes}
        container["volumeMounts"] = [each for each in container["volumeMounts"] if each["name"] in there]
        if backups:
            container["volumeMounts"] = [*container["volumeMounts"], {"name": "backups", "mountPath": "/backups"}]
            volumes.append({"name": "backups", "persistentVolumeClaim": {"claimName": "backups"}})
        body = {
            **spec,
            "containers": [container],
            "volumes": volumes,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}
