"""The cluster fails, part by part: the API server hangs, containerd is killed, the node goes silent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.cluster.manager import PATIENCE, Manager, together
from tests.cluster.node import hang_for, restart, stopped
from tests.contract.cluster import own_namespace
from tests.waiting import wait_for

pytestmark = pytest.mark.alone

HANG = 20.0
"""s; two time limits of a request (KUBE_TIMEOUT)."""

PROMPT = 9.0
"""s in which the manager answers a call, however the cluster is. One that waited for it takes 10 (KUBE_TIMEOUT)."""


@pytest.fixture(scope="module")
def manager(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    with own_namespace() as namespace:
        manager = Manager(namespace, redis_server, tmp_path_factory.mktemp("manager"), SCALER="direct")
        with manager.web(), manager.workers():
            yield manager


def test_while_the_api_server_hangs_calls_are_answered_and_afterwards_done(manager: Manager) -> None:
    """Create, wake, sleep and delete are asked for while it hangs; `/health` says that the cluster is not there."""
    asleep, awake, doomed, quiet = manager.awake(4)
    manager.sleep(asleep)
    manager.wait_status([asleep], "sleeping", 0)
    said: list[tuple[int, str]] = []
    made: list[str] = []
    for _ in hang_for("apiserver", HANG):
        if not made:
            made.append(manager.create())
            manager.wake(asleep)
            manager.sleep(awake)
            manager.delete(doomed)
        health = manager.call("GET", "/health", timeout=PROMPT)
        said.append((health.status_code, health.json()["kubernetes"]))
        assert manager.call("GET", f"/session/{quiet}", timeout=PROMPT).json()["session"]["status"] == "active"
    assert (503, "disconnected") in said
    wait_for(lambda: manager.call("GET", "/health").ok, "the cluster's being there again", seconds=PATIENCE)
    manager.wait_status([asleep, quiet, *made], "active", 1)
    manager.wait_status([awake], "sleeping", 0)
    manager.wait_status([doomed], "terminated", 0)
    assert manager.objects(doomed) == []
    assert all(together(manager.holds, [asleep, quiet]))
    manager.gone([asleep, awake, quiet, *made])


def test_workspaces_outlive_containerd_and_one_that_starts_comes_up(manager: Manager) -> None:
    (running,) = manager.awake(1)
    pod = manager.pod(running)
    starting = manager.create()
    restart("containerd")
    manager.wait_status([starting, running], "active", 1)
    assert manager.pod(running) == pod
    assert manager.holds(running)
    manager.sleep(running)
    manager.wait_status([running], "sleeping", 0)
    manager.wake(running)
    manager.wait_status([running], "active", 1)
    assert manager.holds(running)
    manager.gone([running, starting])


def test_a_node_that_is_silent_is_told_and_clears_when_it_is_back(manager: Manager) -> None:
    """In a user's words, until the cluster hears of it again."""
    (uuid,) = manager.awake(1)
    pod = manager.pod(uuid)
    with stopped("kubelet"):
        wait_for(
            lambda: manager.reason(uuid) == "The machine that runs the workspace does not respond.",
            "the silence to be told",
            lambda: manager.show([uuid]),
            seconds=PATIENCE,
        )
    manager.wait_status([uuid], "active", 1)
    assert (manager.pod(uuid), manager.reason(uuid)) == (pod, "")
    assert manager.holds(uuid)
    manager.gone([uuid])
