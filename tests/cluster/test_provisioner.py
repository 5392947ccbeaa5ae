"""Claims get their volumes also when only other kinds have changed for long: what the API server holds of claims in
memory is then older than the cluster."""

from __future__ import annotations

import pytest

from tests.cluster.node import killed
from tests.contract.cluster import TIMEOUT
from tests.waiting import wait_for
from workers.runtime.kubernetes.api_server import ApiServer

pytestmark = pytest.mark.alone

CLAIMS = "persistentvolumeclaims"
PROMPT = 120.0
"""s for a volume that takes 2 on an idle machine: the provisioner is a Python process that must start first."""
WATCH_LIMIT = 10
"""s; an API server that waits in vain for its memory to be as new as etcd gives up after 3."""


def make_claim(cluster: ApiServer, name: str) -> None:
    """A claim that nobody touches any more until there is a volume."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
    cluster.create(CLAIMS, body)

    def noted() -> bool:
        claim = cluster.get(CLAIMS, name)
        return bool(claim and "volume.kubernetes.io/storage-provisioner" in claim["metadata"].get("annotations", {}))

    wait_for(noted, "the controller's note of who is to make its volume")


def phase(cluster: ApiServer, name: str) -> str:
    claim = cluster.get(CLAIMS, name)
    return str(claim["status"].get("phase")) if claim else "no claim"


def change_another_kind(cluster: ApiServer) -> None:
    for _ in range(5):
        cluster.create("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "other-"}})


def test_a_claim_gets_its_volume_when_the_provisioner_begins_to_watch_in_a_quiet_time(namespace: str) -> None:
    """As after any end of its watch; here it was killed."""
    cluster = ApiServer(namespace, TIMEOUT)
    with killed("provisioner"):
        make_claim(cluster, "late")
        change_another_kind(cluster)
    wait_for(lambda: phase(cluster, "late") == "Bound", "a volume", lambda: phase(cluster, "late"), seconds=PROMPT)


def test_a_watch_that_asks_for_the_newest_of_a_quiet_kind_is_served(namespace: str) -> None:
    """So do newer clients (sendInitialEvents). It takes an etcd that tells the API server how far it is."""
    cluster = ApiServer(namespace, TIMEOUT)
    wait_for(lambda: phase(cluster, "backups") == "Bound", "a volume")
    change_another_kind(cluster)
    watching = cluster.watch(CLAIMS, "", "", WATCH_LIMIT)
    assert next(iter(watching))["type"] == "ADDED"
    watching.release()
