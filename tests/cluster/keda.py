"""Lets a KEDA operator read the tests' Redis, which it reaches where it runs beside the cluster."""

from __future__ import annotations

from kubernetes import client

from tests.conftest import REDIS_PASSWORD
from tests.contract.cluster import TIMEOUT
from workers.runtime.kubernetes.api_server import find_cluster


def let_in(namespace: str) -> None:
    """Put the password, and the TriggerAuthentication `redis` that names it, into the namespace."""
    api = client.ApiClient(find_cluster())
    metadata = client.V1ObjectMeta(name="redis")
    secret = client.V1Secret(metadata=metadata, string_data={"password": REDIS_PASSWORD})
    client.CoreV1Api(api).create_namespaced_secret(namespace, secret, _request_timeout=TIMEOUT)
    reference = {"parameter": "password", "name": "redis", "key": "password"}
    authentication = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": {"name": "redis"},
        "spec": {"secretTargetRef": [reference]},
    }
    client.CustomObjectsApi(api).create_namespaced_custom_object(
        "keda.sh", "v1alpha1", namespace, "triggerauthentications", authentication, _request_timeout=TIMEOUT
    )
