"""The manager comes first on a crowded node and asks for what it needs; a small one has room for workspaces besides."""

from __future__ import annotations

from collections.abc import Iterable

from app.core.sessions.model import Identity
from app.process.settings import Settings
from tests.manifests import (
    PROCESSES,
    Object,
    Requests,
    of_kind,
    pods,
    requests_of,
    settings_of,
)
from workers.runtime.kubernetes import job_objects
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.objects import pod_template

SMALL_NODE = {"cpu": 2.0, "memory": 7 * 2**30}
"""That of the test cluster, and of a common CI runner: cores, and bytes without the system's own."""

WORKSPACES = 3
"""At the least, beside the manager."""


def total(pods: Iterable[Requests]) -> Requests:
    listed = list(pods)
    return {name: sum(each[name] for each in listed) for name in SMALL_NODE}


def choices_of(objects: tuple[Object, ...]) -> KubernetesConfig:
    """What the runtime makes of an overlay's settings, with an agent in every pod."""
    given = settings_of(objects)
    return KubernetesConfig.of(
        Settings(
            runtime="kubernetes",
            workspace_image="w:1",
            secret_key="k" * 32,
            priority_class=given["PRIORITY_CLASS"],
            workspace_sizes=given.get("WORKSPACE_SIZES", Settings().workspace_sizes),
        )
    )


IDENTITY = Identity(uuid="abcd1234", user_id="u", created_at=0.0)


def workspace(objects: tuple[Object, ...]) -> Object:
    spec: Object = pod_template(IDENTITY, choices_of(objects))["spec"]
    return spec


def test_the_manager_comes_before_workspaces(overlay):
    """Every pod of it, Redis too, may take a workspace's place; a workspace takes nobody's, nor does a Job."""
    classes = of_kind(overlay, "PriorityClass")
    manager = {pod.spec["priorityClassName"] for pod in pods(overlay).values()}
    backup = "app-abcd1234-20260101-000000.zip"
    job = job_objects.backup_job("backup", IDENTITY, backup, 0.0, choices_of(overlay))["spec"]["template"]["spec"]

    [first] = manager
    behind = {spec["priorityClassName"] for spec in (workspace(overlay), job)}
    assert len(behind) == 1
    [last] = behind
    assert classes[first].get("preemptionPolicy", "PreemptLowerPriority") == "PreemptLowerPriority"
    assert classes[last]["preemptionPolicy"] == "Never"
    assert classes[first]["value"] > max(0, classes[last]["value"])
    # A cluster autoscaler adds no node for what is below -10.
    assert classes[last]["value"] >= -10
    assert not any(each.get("globalDefault") for each in classes.values())


def test_every_process_asks_for_what_it_needs(overlay):
    """CPU is shared out by requests when it is short; Redis and web are what everybody waits for."""
    asked = {name: requests_of(pod.spec) for name, pod in pods(overlay).items()}

    assert set(asked) == PROCESSES | {"redis"}
    assert all(asked[name]["cpu"] >= 0.1 for name in ("redis", "web"))
    assert all(asked[name]["cpu"] >= 0.02 for name in PROCESSES - {"flower"})
    assert all(each["memory"] >= 64 * 2**20 for each in asked.values())


def test_one_small_node_has_room_for_the_manager_and_for_workspaces(dev):
    """In `dev`, while all of its processes are being replaced, and once they are with a backup under way too."""
    running, surge = [], []
    for name, each in (of_kind(dev, "Deployment") | of_kind(dev, "StatefulSet")).items():
        asked = requests_of(pods(dev)[name].spec)
        running += [asked] * each["spec"]["replicas"]
        rolling = each["spec"].get("strategy", {}).get("rollingUpdate", {})
        surge += [asked] * rolling.get("maxSurge", 0)
    workspaces = [requests_of(workspace(dev))] * WORKSPACES
    job = requests_of({"containers": [{"resources": job_objects.BACKUP_RESOURCES}]})

    assert len(running) == 19 and len(surge) == 8
    for together in (total([*running, *surge, *workspaces]), total([*running, *workspaces, job])):
        assert all(together[name] <= SMALL_NODE[name] for name in SMALL_NODE), together


def test_redis_asks_for_the_memory_it_may_fill(gke):
    """Else it is the first to be evicted, when it holds more than it asked for."""
    assert requests_of(pods(gke)["redis"].spec)["memory"] > 2**30
