"""The overlay `small` is the overlay `gke` with one pod of each process: what it leaves out, and that nothing else is
another. So whatever the other tests say of `gke` is true of it."""

from __future__ import annotations

import copy

from app.core.costs.prices import Prices
from scripts.generate import cost_page
from tests.manifests import MANIFESTS, SYSTEM, Object, Pod, of_kind, pods, render, requests_of

WITH_TWO = {"web", "forward-auth", "gateway", "worker", "sweeper", "backup-worker", "delivery-worker", "observer"}

LEAST_CPU, MEMORY_PER_CPU = 0.05, 6.5 * 2**30
"""Cores and bytes: what GKE Autopilot counts for a pod at the least, and the most memory for a core; for more it counts
more cores (cloud.google.com/kubernetes-engine/docs/concepts/autopilot-resource-requests)."""

ALLOWED = 60
"""$ a month for the service, without GKE's fee."""

Identity = tuple[str, str, str]


def identified(overlay: str) -> dict[Identity, Object]:
    """The objects of an overlay by kind, namespace and name."""
    return {
        (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each
        for each in render(MANIFESTS / "overlays" / overlay)
    }


def small() -> dict[str, Pod]:
    return pods(render(MANIFESTS / "overlays" / "small"))


def without_size(workload: Object) -> Object:
    """A workload without the number of its pods, what they request, and when they leave a lost node."""
    found = copy.deepcopy(workload)
    found["spec"].pop("replicas", None)
    found["spec"]["template"]["spec"].pop("tolerations", None)
    for container in found["spec"]["template"]["spec"]["containers"]:
        del container["resources"]["requests"]
    return found


def test_what_it_leaves_out() -> None:
    """Flower, and what is about second pods: a budget would hold up each drain for one that never comes."""
    left_out = {
        *((kind, SYSTEM, "flower") for kind in ("Deployment", "Service", "ServiceAccount")),
        ("HorizontalPodAutoscaler", SYSTEM, "web"),
        *(("PodDisruptionBudget", SYSTEM, name) for name in WITH_TWO),
    }
    assert set(identified("gke")) - set(identified("small")) == left_out
    assert set(identified("small")) < set(identified("gke"))


def test_nothing_else_is_another() -> None:
    """Settings, secrets, accounts, Redis' users, networks, limits, probes, how a rollout goes."""
    usual = identified("gke")
    for identity, found in identified("small").items():
        if identity[0] in ("Deployment", "StatefulSet"):
            assert without_size(found) == without_size(usual[identity]), identity
        else:
            assert found == usual[identity], identity


def test_there_is_one_pod_of_each_process() -> None:
    objects = render(MANIFESTS / "overlays" / "small")
    workloads = of_kind(objects, "Deployment") | of_kind(objects, "StatefulSet")
    assert {name: each["spec"]["replicas"] for name, each in workloads.items()} == dict.fromkeys(
        {*WITH_TWO, "beat", "redis"}, 1
    )


def test_a_rollout_starts_the_next_pod_before_it_ends_the_only_one() -> None:
    deployments = of_kind(render(MANIFESTS / "overlays" / "small"), "Deployment")
    for name in WITH_TWO:
        assert deployments[name]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_only_pod_leaves_a_lost_node_after_a_minute() -> None:
    """Redis' does not: two could write to one volume."""
    found = small()
    assert "tolerations" not in found.pop("redis").spec
    for name, pod in found.items():
        waits = {each["key"]: each["tolerationSeconds"] for each in pod.spec["tolerations"]}
        assert waits == {"node.kubernetes.io/not-ready": 60, "node.kubernetes.io/unreachable": 60}, name


def test_its_requests_are_what_is_paid_for() -> None:
    """Fewer cores, or more memory for them, Autopilot would count as more cores."""
    for name, pod in small().items():
        asked = requests_of(pod.spec)
        assert asked["cpu"] >= LEAST_CPU, name
        assert asked["memory"] <= asked["cpu"] * MEMORY_PER_CPU, name


def test_the_page_of_costs_counts_its_pods() -> None:
    counted = {each.name: each for each in cost_page.small_processes()}
    ingress = counted.pop("ingress")
    assert {name: (float(each.vcpus), float(each.gib) * 2**30) for name, each in counted.items()} == {
        name: (requests_of(pod.spec)["cpu"], requests_of(pod.spec)["memory"]) for name, pod in small().items()
    }
    assert {each.replicas for each in (*counted.values(), ingress)} == {1}
    assert counted["redis"].disk_gib == 10


def test_it_costs_what_was_promised() -> None:
    assert cost_page.small_platform(Prices.of(cost_page.gke())) < ALLOWED
