"""Who may reach whom, judged by the text of the NetworkPolicies: workspaces run what their users want."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import yaml  # type: ignore[import-untyped]

from app.core.redis.task_queue import CHECK_POLICIES, ROUTES
from app.editor.code_server import CODE_SERVER
from tests.manifests import (
    ARCHIVE,
    MANIFESTS,
    OVERLAYS,
    PROCESSES,
    READER,
    SYSTEM,
    WORKSPACE,
    WORKSPACES,
    Network,
    Object,
    pods,
    render,
    settings_of,
)

PRIVATE = (
    "10.0.0.1",
    "10.96.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "169.254.169.252",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "0.0.0.0",
    "::1",
    "fd00::1",
    "fe80::1",
    "fd20:ce::254",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::1",
)
"""Addresses no workspace may reach: nodes, pods, services, metadata, and ways to write those in IPv6."""


@pytest.fixture(params=OVERLAYS)
def overlay(request) -> tuple[Object, ...]:
    """All objects of each overlay in turn."""
    return render(MANIFESTS / "overlays" / request.param)


@pytest.mark.parametrize("labels", [WORKSPACE, ARCHIVE, READER], ids=["workspace", "archive", "reader"])
def test_no_workspace_reaches_a_private_address(overlay, labels):
    """Nor a Job that handles backups: its worker gives it the credential."""
    network = Network(overlay)

    reached = [
        (address, port)
        for address in PRIVATE
        for port in (53, 80, 443, 988, 6379, 6443, 10250)
        if network.lets_out_to(labels, WORKSPACES, port, address)
    ]

    assert reached == []


def test_workspaces_reach_the_public_internet(overlay):
    """On any port, in both families of addresses."""
    network = Network(overlay)

    assert network.lets_out_to(WORKSPACE, WORKSPACES, 443, "8.8.8.8")
    assert network.lets_out_to(WORKSPACE, WORKSPACES, 22, "140.82.112.3")
    assert network.lets_out_to(WORKSPACE, WORKSPACES, 443, "2606:4700:4700::1111")


def test_workspaces_reach_the_names_and_the_gateway_and_no_other_pod(overlay):
    """DNS at its port, the gateway at its; neither the API, nor Redis, nor Flower, nor each other."""
    network = Network(overlay)
    dns, gateway, redis, flower = (
        {"k8s-app": "kube-dns"},
        *({"app.kubernetes.io/name": n} for n in ("gateway", "redis", "flower")),
    )

    def reaches(port: int, target: Mapping[str, str], home: str) -> bool:
        return network.lets_out_to_pod(WORKSPACE, WORKSPACES, port, target, home)

    assert reaches(53, dns, "kube-system") and not reaches(443, dns, "kube-system")
    assert reaches(8001, gateway, SYSTEM) and not reaches(8000, gateway, SYSTEM)
    admitting = {
        (name, port)
        for name, pod in pods(overlay).items()
        for port in (8000, 8001, 5555, 6379)
        if reaches(port, pod.labels, SYSTEM) or network.admits(pod.labels, SYSTEM, port, WORKSPACE, WORKSPACES)
    }
    assert admitting == {("gateway", 8001)}
    assert not any(reaches(6379, redis, home) for home in (SYSTEM, WORKSPACES))
    assert not any(reaches(port, flower, SYSTEM) for port in (5555, 8000))
    assert not any(reaches(port, WORKSPACE, WORKSPACES) for port in (53, 80, 1111, 8080))
    # A pod can't make itself the name service by its labels.
    assert not reaches(53, dns, WORKSPACES)


def test_nobody_but_workspaces_reaches_the_gateway(overlay):
    """It is on no ingress, and no Job of theirs has business with it."""
    network, gateway = Network(overlay), pods(overlay)["gateway"].labels

    assert network.admits(gateway, SYSTEM, 8001, WORKSPACE, WORKSPACES)
    assert not network.admits(gateway, SYSTEM, 8001, ARCHIVE, WORKSPACES)
    assert not network.admits(gateway, SYSTEM, 8001, WORKSPACE, "elsewhere")
    assert not network.admits(gateway, SYSTEM, 8001, {}, "traefik")


def test_what_speaks_with_workspaces_reaches_no_more_than_it_needs(overlay):
    """The gateway the public model and Redis, the delivery worker agents and Redis; both the names. Neither the API
    server."""
    network = Network(overlay)
    gateway, delivery_worker = (pods(overlay)[name].labels for name in ("gateway", "delivery-worker"))
    redis, web, dns = pods(overlay)["redis"].labels, pods(overlay)["web"].labels, {"k8s-app": "kube-dns"}

    for labels in (gateway, delivery_worker):
        assert network.lets_out_to_pod(labels, SYSTEM, 6379, redis, SYSTEM)
        assert network.lets_out_to_pod(labels, SYSTEM, 53, dns, "kube-system")
        assert not network.lets_out_to_pod(labels, SYSTEM, 8000, web, SYSTEM)
        assert not network.lets_out_to(labels, SYSTEM, 443, "10.96.0.1")
    assert network.lets_out_to(gateway, SYSTEM, 443, "8.8.8.8")
    assert not network.lets_out_to(delivery_worker, SYSTEM, 443, "8.8.8.8")
    assert network.lets_out_to_pod(delivery_worker, SYSTEM, 1111, WORKSPACE, WORKSPACES)
    assert not network.lets_out_to_pod(delivery_worker, SYSTEM, 8080, WORKSPACE, WORKSPACES)
    assert not network.lets_out_to_pod(gateway, SYSTEM, 1111, WORKSPACE, WORKSPACES)


def test_what_shows_that_policies_are_enforced_is_forbidden(overlay):
    """The API server, to the delivery workers, at whatever address and port a cluster has it, as an address and as a
    pod: what workers/network_policies.py tries there must fail. They are the ones that try, and they are told where it
    is."""
    network, delivery_worker = Network(overlay), pods(overlay)["delivery-worker"]
    addresses = (*PRIVATE, "34.118.224.1", "8.8.8.8", "2606:4700:4700::1111")

    assert ROUTES[CHECK_POLICIES] == "deliver"
    assert delivery_worker.containers[0]["args"] == ["delivery-worker"]
    for port in (443, 6443, 8443):
        assert not any(network.lets_out_to(delivery_worker.labels, SYSTEM, port, address) for address in addresses)
        for labels in ({"component": "kube-apiserver"}, {}):
            assert not network.lets_out_to_pod(delivery_worker.labels, SYSTEM, port, labels, "kube-system")


def test_workspaces_are_reached_by_the_ingress_and_the_manager_only(overlay):
    """At the agent's port by those of the manager that speak with it, at the editor's by the ingress; not by siblings,
    not by Redis. Backup Jobs by nobody."""
    network = Network(overlay)

    def admits(port: int, source: Mapping[str, str], home: str, pod: Mapping[str, str] = WORKSPACE) -> bool:
        return network.admits(pod, WORKSPACES, port, source, home)

    web, redis = {"app.kubernetes.io/name": "web"}, {"app.kubernetes.io/name": "redis"}
    assert admits(CODE_SERVER.port, {}, "traefik") and admits(1111, {}, "traefik") and not admits(22, {}, "traefik")
    speaking = {name for name, pod in pods(overlay).items() if admits(1111, pod.labels, SYSTEM)}
    assert speaking == {"web", "sweeper", "backup-worker", "delivery-worker"}
    assert not admits(CODE_SERVER.port, web, SYSTEM) and not admits(CODE_SERVER.port, redis, SYSTEM)
    assert not admits(CODE_SERVER.port, web, "elsewhere")
    assert not admits(CODE_SERVER.port, WORKSPACE, WORKSPACES)
    assert not any(admits(port, web, SYSTEM, ARCHIVE) for port in (80, 1111, 8080))


def test_a_backup_s_reader_is_reached_by_web_only(overlay):
    """At its one port; not by the ingress, not by a workspace, not by the rest of the manager."""
    network = Network(overlay)

    reached_by = {
        name for name, pod in pods(overlay).items() if network.admits(READER, WORKSPACES, 8081, pod.labels, SYSTEM)
    }

    assert reached_by == {"web"}
    assert not network.admits(READER, WORKSPACES, 8080, pods(overlay)["web"].labels, SYSTEM)
    assert not network.admits(READER, WORKSPACES, 8081, pods(overlay)["web"].labels, WORKSPACES)
    assert not network.admits(READER, WORKSPACES, 8081, {}, "traefik")
    assert not network.admits(READER, WORKSPACES, 8081, WORKSPACE, WORKSPACES)


def test_redis_is_reached_by_the_manager_and_keda_only(overlay):
    """Its password is one thing, not being reached another."""
    network, redis = Network(overlay), {"app.kubernetes.io/name": "redis"}

    assert all(network.admits(redis, SYSTEM, 6379, pods(overlay)[name].labels, SYSTEM) for name in PROCESSES)
    assert network.admits(redis, SYSTEM, 6379, {}, "keda")
    assert not network.admits(redis, SYSTEM, 6379, WORKSPACE, WORKSPACES)
    assert not network.admits(redis, SYSTEM, 6379, pods(overlay)["web"].labels, WORKSPACES)


@pytest.mark.parametrize("labels", [ARCHIVE, READER], ids=["archive", "reader"])
def test_a_job_reaches_its_store_and_nothing_else(overlay, labels):
    """Where that is a bucket, by its addresses and at its port, and the names. A volume needs no network."""
    network, bucket = Network(overlay), settings_of(overlay)["BACKUP_URL"].startswith("gs://")
    dns, gateway = {"k8s-app": "kube-dns"}, pods(overlay)["gateway"].labels

    def reaches(address: str, port: int = 443) -> bool:
        return network.lets_out_to(labels, WORKSPACES, port, address)

    assert reaches("199.36.153.8") is bucket
    assert network.lets_out_to_pod(labels, WORKSPACES, 53, dns, "kube-system") is bucket
    assert not reaches("199.36.153.8", 80) and not reaches("199.36.153.12")
    assert not any(reaches(each) for each in ("8.8.8.8", "140.82.112.3", "2606:4700:4700::1111", "34.118.224.1"))
    assert not network.lets_out_to_pod(labels, WORKSPACES, 8001, gateway, SYSTEM)
    assert not network.lets_out_to_pod(labels, WORKSPACES, 1111, WORKSPACE, WORKSPACES)


def test_gke_keeps_workspaces_from_the_control_plane():
    """A control plane has a public address, and the services' range is no private one."""
    network = Network(render(MANIFESTS / "overlays" / "gke"))
    values = yaml.safe_load((MANIFESTS / "overlays" / "gke" / "values.yaml").read_text())["data"]

    for forbidden in (values["control-plane"].partition("/")[0], "34.118.224.1"):
        assert not network.lets_out_to(WORKSPACE, WORKSPACES, 443, forbidden)
    assert network.lets_out_to(WORKSPACE, WORKSPACES, 53, "169.254.20.10")
