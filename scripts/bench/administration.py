"""What an administrator of the cluster does around the measurements, and undoes: quota, a class of volumes, deletions.

By the kubernetes client's own calls and kubectl (KUBECTL, else the one on PATH): the service itself needs none of it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from kubernetes import client

from scripts.bench.product import NAMESPACE, SYSTEM, TIMEOUT
from workers.runtime.kubernetes import names
from workers.runtime.kubernetes.api_server import find_cluster

CLASS = "bench-many"
GOING_LIMIT = 600.0
"""s to wait for the objects to be gone; what is left then is said, and goes when the cluster comes to it."""

RSS = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


class Administration:
    """One cluster, by KUBECONFIG. Raises the client's own errors."""

    def __init__(self) -> None:
        api = client.ApiClient(find_cluster())
        # Every field of its types may be None, which says nothing here.
        self._core: Any = client.CoreV1Api(api)
        self._apps: Any = client.AppsV1Api(api)
        self._networking: Any = client.NetworkingV1Api(api)
        self._storage: Any = client.StorageV1Api(api)

    def redis_url(self) -> str:
        """REDIS_URL, else what the service's own processes are told."""
        if url := os.environ.get("REDIS_URL"):
            return url
        secret = self._core.read_namespaced_secret("redis", SYSTEM, _request_timeout=TIMEOUT)
        password = base64.b64decode(secret.data["password"]).decode()
        service = self._core.read_namespaced_service("redis", SYSTEM, _request_timeout=TIMEOUT)
        pods = self._core.list_namespaced_pod(
            SYSTEM, label_selector=_selector(service.spec.selector), _request_timeout=TIMEOUT
        ).items
        return f"redis://:{password}@{pods[0].status.pod_ip}:6379/0"

    def workspace_image(self) -> str:
        """What the service's workspaces run."""
        worker = self._apps.read_namespaced_deployment("worker", SYSTEM, _request_timeout=TIMEOUT)
        sources = worker.spec.template.spec.containers[0].env_from or []
        for source in sources:
            if source.config_map_ref is not None:
                name = source.config_map_ref.name
                data = self._core.read_namespaced_config_map(name, SYSTEM, _request_timeout=TIMEOUT).data
                if image := data.get("WORKSPACE_IMAGE"):
                    return str(image)
        raise RuntimeError("The worker's settings name no WORKSPACE_IMAGE.")

    def observer_memory(self) -> int:
        """Bytes of the larger watcher: of the one that leads, which alone keeps the workspaces in mind."""
        pods = self._core.list_namespaced_pod(
            SYSTEM, label_selector="app.kubernetes.io/name=observer", _request_timeout=TIMEOUT
        ).items
        command = ["sh", "-c", "cat /proc/[0-9]*/status"]
        running = [pod.metadata.name for pod in pods if pod.status.phase == "Running"]
        shown = [kubectl("-n", SYSTEM, "exec", name, "--", *command) for name in running]
        return max(int(kilobytes) * 1024 for each in shown for kilobytes in RSS.findall(each))

    @contextmanager
    def room_for(self, sessions: int) -> Iterator[str]:
        """Room for so many more in the namespace's quota, and a class whose volumes come with the first pod."""
        quotas = self._core.list_namespaced_resource_quota(NAMESPACE, _request_timeout=TIMEOUT).items
        wide = {"persistentvolumeclaims": str(sessions + 5_000), "requests.storage": "1Pi"}
        self._delete_class()
        self._storage.create_storage_class(
            client.V1StorageClass(
                metadata=client.V1ObjectMeta(name=CLASS),
                provisioner="kubernetes.io/no-provisioner",
                volume_binding_mode="WaitForFirstConsumer",
            ),
            _request_timeout=TIMEOUT,
        )
        try:
            for quota in quotas:
                self._limit(quota, {name: wide.get(name, limit) for name, limit in quota.spec.hard.items()})
            yield CLASS
        finally:
            for quota in quotas:
                self._limit(quota, quota.spec.hard)
            self._delete_class()

    def delete_sessions_of(self, user: str) -> None:
        """Delete every object of a user's sessions, kind by kind: the garbage collector alone takes an hour."""
        everything: dict[str, Any] = {
            "label_selector": f"{names.USER_LABEL}={user}",
            "_request_timeout": GOING_LIMIT,
        }
        _delete_all(self._networking.delete_collection_namespaced_ingress, everything)
        _delete_all(self._core.delete_collection_namespaced_service, everything)
        _delete_all(self._core.delete_collection_namespaced_secret, everything)
        _delete_all(
            self._apps.delete_collection_namespaced_deployment, everything | {"propagation_policy": "Background"}
        )
        _delete_all(self._core.delete_collection_namespaced_persistent_volume_claim, everything)
        deadline = time.monotonic() + GOING_LIMIT
        while self._claims(everything["label_selector"]):
            if time.monotonic() > deadline:
                print("  claims are still being deleted", flush=True)
                return
            time.sleep(1.0)

    def _claims(self, selector: str) -> int:
        found = self._core.list_namespaced_persistent_volume_claim(
            NAMESPACE, label_selector=selector, limit=1, _request_timeout=TIMEOUT
        )
        return len(found.items)

    def _limit(self, quota: Any, hard: dict[str, str]) -> None:
        """As `kubectl apply` does it, which made the quota: its next one would find any other's changes in its way."""
        metadata = {"name": quota.metadata.name, "namespace": NAMESPACE, "labels": quota.metadata.labels or {}}
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(body))

    def _delete_class(self) -> None:
        try:
            self._storage.delete_storage_class(CLASS, _request_timeout=TIMEOUT)
        except client.ApiException as error:
            if error.status != 404:
                raise


def kubectl(*arguments: str, stdin: str = "") -> str:
    """What it prints; raises `subprocess.SubprocessError`."""
    command = [os.environ.get("KUBECTL", "kubectl"), *arguments]
    return subprocess.run(command, input=stdin, check=True, capture_output=True, text=True, timeout=TIMEOUT).stdout


def _selector(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())


def _delete_all(delete: Callable[..., Any], everything: dict[str, Any]) -> None:
    """Ask until it is done: after a minute the API server breaks off with 504, having deleted as many as it could."""
    deadline = time.monotonic() + GOING_LIMIT
    while True:
        try:
            delete(NAMESPACE, **everything)
            return
        except client.ApiException as error:
            if error.status != HTTPStatus.GATEWAY_TIMEOUT or time.monotonic() > deadline:
                raise
