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
    PROCESSES,
    READER,
    SYSTEM,
    WORKSPACE,
    WORKSPACES,
    Network,
    Pod,
    pods,
    settings_of,
)

PRIVATE = (
    *("10.0.0.1", "10.96.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "169.254.169.252"),
    *("172.16.0.1", "172.31.255.254", "192.168.1.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"),
    *("::1", "fd00::1", "fe80::1", "fd20:ce::254", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1"),
)
"""Addresses no workspace may reach: nodes, pods, services, metadata, and ways to write those in IPv6."""

DNS = {"k8s-app": "kube-dns"}


@pytest.fixture
def found(network: Network) -> dict[str, Pod]:
    """The manager's pods and Redis'."""
    return pods(network.objects)


@pytest.mark.parametrize("labels", [WORKSPACE, ARCHIVE, READER], ids=["workspace", "archive", "reader"])
def test_no_workspace_reaches_a_private_address(network, labels):
    """Nor a Job that handles backups: its worker gives it the credential."""
    reached = [
        (address, port)
        for address in PRIVATE
        for port in (53, 80, 443, 988, 6379, 6443, 10250)
        if network.lets_out_to(labels, WORKSPACES, port, address)
    ]

    assert reached == []


def test_workspaces_reach_the_public_internet(network):
    """On any port, in both families of addresses."""
    assert network.lets_out_to(WORKSPACE, WORKSPACES, 443, "8.8.8.8")
    assert network.lets_out_to(WORKSPACE, WORKSPACES, 22, "140.82.112.3")
    assert network.lets_out_to(WORKSPACE, WORKSPACES, 443, "2606:4700:4700::1111")


def test_workspaces_reach_the_names_and_the_gateway_and_no_other_pod(network, found):
    """DNS at its port, the gateway at its; neither the API, nor Redis, nor Flower, nor each other."""

    def reaches(port: int, target: Mapping[str, str], home: str) -> bool:
        return network.lets_out_to_pod(WORKSPACE, WORKSPACES, port, target, home)

    assert reaches(53, DNS, "kube-system") and not reaches(443, DNS, "kube-system")
    admitting = {
        (name, port)
        for name, pod in found.items()
        for port in (8000, 8001, 5555, 6379)
        if reaches(port, pod.labels, SYSTEM) or network.admits(pod.labels, SYSTEM, port, WORKSPACE, WORKSPACES)
    }
    assert reaches(8001, found["gateway"].labels, SYSTEM)
    assert admitting == {("gateway", 8001)}
    assert not reaches(6379, found["redis"].labels, WORKSPACES)
    assert not any(reaches(port, WORKSPACE, WORKSPACES) for port in (53, 80, 1111, 8080))
    # A pod can't make itself the name service by its labels.
    assert not reaches(53, DNS, WORKSPACES)


def test_nobody_but_workspaces_reaches_the_gateway(network, found):
    """It is on no ingress, and no Job of theirs has business with it."""
    gateway = found["gateway"].labels

    assert network.admits(gateway, SYSTEM, 8001, WORKSPACE, WORKSPACES)
    assert not network.admits(gateway, SYSTEM, 8001, ARCHIVE, WORKSPACES)
    assert not network.admits(gateway, SYSTEM, 8001, WORKSPACE, "elsewhere")
    assert not network.admits(gateway, SYSTEM, 8001, {}, "traefik")


def test_what_speaks_with_workspaces_reaches_no_more_than_it_needs(network, found):
    """The gateway the public model and Redis, the delivery worker agents and Redis; both the names. Neither the API
    server."""
    gateway, delivery_worker, redis, web = (
        found[name].labels for name in ("gateway", "delivery-worker", "redis", "web")
    )

    for labels in (gateway, delivery_worker):
        assert network.lets_out_to_pod(labels, SYSTEM, 6379, redis, SYSTEM)
        assert network.lets_out_to_pod(labels, SYSTEM, 53, DNS, "kube-system")
        assert not network.lets_out_to_pod(labels, SYSTEM, 8000, web, SYSTEM)
        assert not network.lets_out_to(labels, SYSTEM, 443, "10.96.0.1")
    assert network.lets_out_to(gateway, SYSTEM, 443, "8.8.8.8")
    assert not network.lets_out_to(delivery_worker, SYSTEM, 443, "8.8.8.8")
    assert network.lets_out_to_pod(delivery_worker, SYSTEM, 1111, WORKSPACE, WORKSPACES)
    assert not network.lets_out_to_pod(delivery_worker, SYSTEM, 8080, WORKSPACE, WORKSPACES)
    assert not network.lets_out_to_pod(gateway, SYSTEM, 1111, WORKSPACE, WORKSPACES)


def test_what_shows_that_policies_are_enforced_is_forbidden(network, found):
    """The API server, to the delivery workers, at whatever address and port a cluster has it, as an address and as a
    pod: what workers/network_policies.py tries there must fail. They are the ones that try, and they are told where it
    is."""
    delivery_worker = found["delivery-worker"]
    addresses = (*PRIVATE, "34.118.224.1", "8.8.8.8", "2606:4700:4700::1111")

    assert ROUTES[CHECK_POLICIES] == "deliver"
    assert delivery_worker.containers[0]["args"] == ["delivery-worker"]
    for port in (443, 6443, 8443):
        assert not any(network.lets_out_to(delivery_worker.labels, SYSTEM, port, address) for address in addresses)
        for labels in ({"component": "kube-apiserver"}, {}):
            assert not network.lets_out_to_pod(delivery_worker.labels, SYSTEM, port, labels, "kube-system")


def test_workspaces_are_reached_by_the_ingress_and_the_manager_only(network, found):
    """At the agent's port by those of the manager that speak with it, at the editor's by the ingress; not by siblings,
    not by Redis. Backup Jobs by nobody."""

    def admits(port: int, source: Mapping[str, str], home: str, pod: Mapping[str, str] = WORKSPACE) -> bool:
        return network.admits(pod, WORKSPACES, port, source, home)

    web, redis = found["web"].labels, found["redis"].labels
    assert admits(CODE_SERVER.port, {}, "traefik") and admits(1111, {}, "traefik") and not admits(22, {}, "traefik")
    speaking = {name for name, pod in found.items() if admits(1111, pod.labels, SYSTEM)}
    assert speaking == {"web", "sweeper", "backup-worker", "delivery-worker"}
    assert not admits(CODE_SERVER.port, web, SYSTEM) and not admits(CODE_SERVER.port, redis, SYSTEM)
    assert not admits(CODE_SERVER.port, web, "elsewhere")
    assert not admits(CODE_SERVER.port, WORKSPACE, WORKSPACES)
    assert not any(admits(port, web, SYSTEM, ARCHIVE) for port in (80, 1111, 8080))


def test_a_backup_s_reader_is_reached_by_web_only(network, found):
    """At its one port; not by the ingress, not by a workspace, not by the rest of the manager."""
    web = found["web"].labels

    assert {name for name in found if network.admits(READER, WORKSPACES, 8081, found[name].labels, SYSTEM)} == {"web"}
    assert not network.admits(READER, WORKSPACES, 8080, web, SYSTEM)
    assert not network.admits(READER, WORKSPACES, 8081, web, WORKSPACES)
    assert not network.admits(READER, WORKSPACES, 8081, {}, "traefik")
    assert not network.admits(READER, WORKSPACES, 8081, WORKSPACE, WORKSPACES)


def test_redis_is_reached_by_the_manager_and_keda_only(network, found):
    """Its password is one thing, not being reached another."""
    redis = found["redis"].labels

    assert all(network.admits(redis, SYSTEM, 6379, found[name].labels, SYSTEM) for name in PROCESSES)
    assert network.admits(redis, SYSTEM, 6379, {}, "keda")
    assert not network.admits(redis, SYSTEM, 6379, WORKSPACE, WORKSPACES)
    assert not network.admits(redis, SYSTEM, 6379, found["web"].labels, WORKSPACES)


@pytest.mark.parametrize("labels", [ARCHIVE, READER], ids=["archive", "reader"])
def test_a_job_reaches_its_store_and_nothing_else(network, found, labels):
    """Where that is a bucket, by its addresses and at its port, and the names. A volume needs no network."""
    bucket = settings_of(network.objects)["BACKUP_URL"].startswith("gs://")

    def reaches(address: str, port: int = 443) -> bool:
        return network.lets_out_to(labels, WORKSPACES, port, address)

    assert reaches("199.36.153.8") is bucket
    assert network.lets_out_to_pod(labels, WORKSPACES, 53, DNS, "kube-system") is bucket
    assert not reaches("199.36.153.8", 80) and not reaches("199.36.153.12")
    assert not any(reaches(each) for each in ("8.8.8.8", "140.82.112.3", "2606:4700:4700::1111", "34.118.224.1"))
    assert not network.lets_out_to_pod(labels, WORKSPACES, 8001, found["gateway"].labels, SYSTEM)
    assert not network.lets_out_to_pod(labels, WORKSPACES, 1111, WORKSPACE, WORKSPACES)


def test_gke_keeps_workspaces_from_the_control_plane(gke):
    """A control plane has a public address, and the services' range is no private one."""
    network = Network(gke)
    values = yaml.safe_load((MANIFESTS / "overlays" / "gke" / "values.yaml").read_text())["data"]

    for forbidden in (values["control-plane"].partition("/")[0], "34.118.224.1"):
        assert not network.lets_out_to(WORKSPACE, WORKSPACES, 443, forbidden)
    assert network.lets_out_to(WORKSPACE, WORKSPACES, 53, "169.254.20.10")
