"""A cluster without room for a workspace: its session waits, says so, and goes on by itself when there is room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from kubernetes import client
from kubernetes.utils import parse_quantity

from app.core.redis import keys
from tests.cluster.manager import PATIENCE, Manager
from tests.contract.cluster import TIMEOUT, own_namespace
from tests.waiting import wait_for
from workers.runtime.kubernetes.api_server import find_cluster

pytestmark = pytest.mark.alone

HOST = "kubernetes.io/hostname"
OVER = ("Succeeded", "Failed")


def free_cpu(api: client.ApiClient, node: dict[str, Any]) -> float:
    """Cores of the node that no pod has asked for, once those that other tests ended are gone."""

    def settled() -> list[dict[str, Any]]:
        pods = client.CoreV1Api(api).list_pod_for_all_namespaces(_request_timeout=TIMEOUT)
        listed = api.sanitize_for_serialization(pods)["items"]
        return [] if any("deletionTimestamp" in pod["metadata"] for pod in listed) else listed

    asked = [
        parse_quantity(container["resources"]["requests"]["cpu"])
        for pod in wait_for(settled, "no pod to be ending", seconds=PATIENCE)
        if pod["spec"].get("nodeName") == node["metadata"]["name"] and pod["status"]["phase"] not in OVER
        for container in pod["spec"]["containers"]
        if "cpu" in container.get("resources", {}).get("requests", {})
    ]
    return float(parse_quantity(node["status"]["allocatable"]["cpu"]) - sum(asked))


@pytest.fixture
def manager(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """Each workspace asks for more than half of what is free on one node."""
    with redis.Redis.from_url(redis_server) as flushed:
        flushed.flushall()
    api = client.ApiClient(find_cluster())
    nodes = api.sanitize_for_serialization(client.CoreV1Api(api).list_node(_request_timeout=TIMEOUT))["items"]
    cpu = f"{round(600 * free_cpu(api, nodes[0]))}m"
    environ = {
        "SCALER": "direct",
        "WORKSPACE_SIZES": json.dumps(dict.fromkeys(("small", "standard", "large"), [cpu, cpu, "32Mi", "1Gi"])),
        "NODE_SELECTOR": json.dumps({HOST: nodes[0]["metadata"]["labels"][HOST]}),
    }
    with own_namespace() as namespace:
        manager = Manager(namespace, redis_server, tmp_path_factory.mktemp("manager"), **environ)
        with manager.web(), manager.workers():
            yield manager


def test_a_session_that_finds_no_room_waits_and_goes_on_when_there_is_some(manager: Manager) -> None:
    """Nothing but another's sleep is needed for that, and it has not failed meanwhile."""
    first = manager.create()
    manager.wait_status([first], "active", 1)
    second = manager.create()

    def session() -> dict[str, Any]:
        return dict(manager.session(second)["session"])

    wait_for(lambda: session()["reason"], "a reason", lambda: manager.show([second]), PATIENCE)
    told = session()
    assert (told["status"], told["reason_code"]) == ("created", "no_capacity")
    assert told["reason"].startswith("No machine of the cluster has room for the workspace: ")
    pods = manager.objects(second, "pods")
    manager.sleep(first)
    manager.wait_status([first], "sleeping", 0)
    manager.wait_status([second], "active", 1)
    assert (session()["reason"], session()["reason_code"]) == (None, None)
    assert manager.objects(second, "pods") == pods, "it lost its place among those that wait"
    events = [entry for _, entry in manager.redis.xrange(keys.EVENTS.format(uuid=second))]
    states = [json.loads(entry["data"])["status"] for entry in events if entry["type"] == "state"]
    assert (states[0], states[-1]) == ("created", "active")
    assert "failed" not in states
    manager.gone([first, second])
