"""The objects a new cluster needs before anything else can run on it, and how they are applied."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.cluster.components import KEDA_NAMESPACE
from scripts.cluster.layout import DNS_IP, NODE_IP, Layout
from scripts.cluster.processes import run
from scripts.cluster.programs import Programs
from scripts.cluster.provisioner import storage_classes

MANAGER = "cluster"
"""The field manager of everything applied here."""
CLASS = "traefik"
PROBE = {"namespace": "kube-system", "name": "cluster-probe"}


def objects() -> list[dict[str, Any]]:
    """Objects for the parts that run outside the cluster."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": KEDA_NAMESPACE}},
        *storage_classes(),
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": CLASS, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
            "spec": {"controller": "traefik.io/ingress-controller"},
        },
        *dns_objects(),
    ]


def dns_objects() -> list[dict[str, Any]]:
    """The pods' DNS address, for the DNS server that runs outside the cluster."""
    labels = {"k8s-app": "kube-dns"}
    ports = [
        {"name": name, "port": 53, "protocol": protocol} for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "spec": {"clusterIP": DNS_IP, "ports": [{**port, "targetPort": 53} for port in ports]},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
    }
    return [service, endpoints]


def probe_claim() -> dict[str, Any]:
    """A claim that tests whether volumes are created; removed when it is bound."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": PROBE,
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }


def kubectl(layout: Layout, programs: Programs, *arguments: str, text: str | None = None, timeout: float = 60.0) -> str:
    """Run kubectl as the administrator. Raises ClusterError with its output if it fails."""
    command = [programs["kubectl"], f"--kubeconfig={layout.kubeconfig}", f"--cache-dir={layout.folder}/kubectl"]
    return run([*command, *arguments], text=text, timeout=timeout)


def apply(layout: Layout, programs: Programs, items: Iterable[dict[str, Any]]) -> None:
    """Apply objects on the server's side; repeating it changes nothing."""
    bundle = {"apiVersion": "v1", "kind": "List", "items": list(items)}
    _apply(layout, programs, ["-"], json.dumps(bundle))


def apply_folders(layout: Layout, programs: Programs, folders: Iterable[Path]) -> None:
    _apply(layout, programs, [str(folder) for folder in folders], None)


def _apply(layout: Layout, programs: Programs, sources: list[str], text: str | None) -> None:
    named = [f"--filename={source}" for source in sources]
    arguments = ["apply", "--server-side", "--force-conflicts", f"--field-manager={MANAGER}", *named]
    kubectl(layout, programs, *arguments, text=text)
