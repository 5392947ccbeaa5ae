"""Renders the manifests as `kubectl apply -k` would, and answers questions about what came out."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from scripts.cluster import programs
from scripts.cluster.errors import ClusterError
from scripts.lib.locks import only_one
from scripts.lib.processes import MANAGER
from workers.runtime.kubernetes import names

Object = dict[str, Any]

MANIFESTS = Path(__file__).resolve().parents[1] / "manifests"
SYSTEM, WORKSPACES = "fresh-system", "fresh-workspaces"
OVERLAYS = ("dev", "gke")
PROCESSES = {*MANAGER, "flower"}

WORKSPACE = {names.APP_LABEL: names.WORKSPACE, names.UUID_LABEL: "abcd1234"}
READER = {names.APP_LABEL: names.DOWNLOAD}
ARCHIVE = {names.APP_LABEL: names.BACKUP, names.UUID_LABEL: "abcd1234"}

WORKER = {
    "deployments": {"create", "delete", "get", "list", "patch"},
    "persistentvolumeclaims": {"create", "delete", "get", "list", "patch"},
    "services": {"create", "delete", "patch"},
    "ingresses": {"create", "delete", "list", "patch"},
    "secrets": {"create", "delete", "update"},
    "pods": {"delete", "get", "list", "patch"},
    "jobs": {"create", "delete", "get", "list"},
    "namespaces": {"get"},
    "scaledobjects": {"create", "delete", "list", "patch"},
}
ALLOWED = {
    "worker": WORKER,
    "sweeper": WORKER,
    "backup-worker": WORKER,
    "observer": {name: {"list", "watch"} for name in ("deployments", "persistentvolumeclaims", "events", "pods")},
}
"""What each account may do, all of it in the workspaces' namespace: resource to verbs."""

KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1"
"""The release that is built into kubectl 1.34: what both render is the same."""

BUILD_LIMIT, RENDER_LIMIT = 900, 60
"""s. Building kustomize takes 35 s once, rendering well under one."""


@cache
def renderer() -> tuple[str, ...]:
    """The command that renders a folder: kubectl where the test cluster has one, else kustomize, built once."""
    kubectl = os.environ.get("KUBECTL") or programs.built()["kubectl"]
    if Path(kubectl).exists():
        return (kubectl, "kustomize")
    folder = programs.cache_folder() / f"kustomize-{KUSTOMIZE.rpartition('@')[2]}"
    folder.mkdir(parents=True, exist_ok=True)
    kustomize = folder / "kustomize"
    with only_one(folder / "lock", BUILD_LIMIT, TimeoutError):
        if not kustomize.exists():
            try:
                go = programs.find_go()
            except ClusterError:
                pytest.skip("neither kubectl nor Go is here to render the manifests")
            draft = folder / "draft"
            environment = os.environ | {"GOBIN": str(draft), "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"}
            subprocess.run([go, "install", KUSTOMIZE], env=environment, cwd="/", timeout=BUILD_LIMIT, check=True)
            (draft / kustomize.name).replace(kustomize)
    return (str(kustomize), "build")


@cache
def render(folder: Path) -> tuple[Object, ...]:
    """Every object of a kustomization. Raises CalledProcessError when it can't be built."""
    done = subprocess.run([*renderer(), str(folder)], capture_output=True, timeout=RENDER_LIMIT, check=True)
    return tuple(each for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each)


def with_components(folder: Path, *components: str) -> tuple[Object, ...]:
    """All objects of the base with these components."""
    up = os.path.relpath(MANIFESTS, folder.resolve())
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{up}/base"],
        "components": [f"{up}/components/{name}" for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


def of_kind(objects: Iterable[Object], kind: str, namespace: str = "") -> dict[str, Object]:
    """Those of a kind by name, of one namespace if it is given."""
    return {
        each["metadata"]["name"]: each
        for each in objects
        if each["kind"] == kind and namespace in ("", each["metadata"].get("namespace", ""))
    }


def settings_of(objects: Iterable[Object]) -> dict[str, str]:
    """The environment that all processes of the manager get."""
    found = [each for name, each in of_kind(objects, "ConfigMap").items() if name.startswith("settings-")]
    assert len(found) == 1
    return dict(found[0]["data"])


@dataclass(frozen=True)
class Pod:
    """What some object starts: its name, namespace, labels and pod spec."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(objects: Iterable[Object]) -> dict[str, Pod]:
    """What the Deployments and StatefulSets start, by name."""
    return {
        each["metadata"]["name"]: Pod(
            each["metadata"]["name"],
            each["metadata"]["namespace"],
            each["spec"]["template"]["metadata"]["labels"],
            each["spec"]["template"]["spec"],
        )
        for each in objects
        if each["kind"] in ("Deployment", "StatefulSet")
    }


UNITS = {"m": 0.001, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1}

Requests = dict[str, float]
"""Of `cpu` in cores and `memory` in bytes."""


def quantity(text: str) -> float:
    """A quantity of Kubernetes in cores or bytes."""
    digits = text.rstrip("KMGim")
    return float(digits) * UNITS[text[len(digits) :]]


def requests_of(spec: Object) -> Requests:
    """What a pod asks for."""
    asked = [each["resources"]["requests"] for each in spec["containers"]]
    return {name: sum(quantity(each[name]) for each in asked) for name in ("cpu", "memory")}


def unrestricted(spec: Object) -> Iterator[str]:
    """What in a pod spec breaks Pod Security "restricted", or this project's own rules beyond it
    (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""
    pod = spec.get("securityContext", {})
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    if pod.get("runAsNonRoot") is not True or pod.get("runAsUser") != 1000:
        yield "not uid 1000"
    if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    if spec.get("enableServiceLinks") is not False:
        yield "service links"
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected"}
    yield from (f"volume {each['name']}" for each in spec.get("volumes", []) if set(each) - {"name"} - allowed)
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        context = container.get("securityContext", {})
        if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']}: privileges"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']}: capabilities"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']}: writable root"
        if set(context) & {"runAsUser", "runAsNonRoot", "seccompProfile"}:
            yield f"{container['name']}: overrides the pod"


@dataclass(frozen=True)
class Network:
    """The NetworkPolicies of a rendered tree, as an engine would judge by them."""

    objects: tuple[Object, ...]

    def admits(self, pod: Mapping[str, str], namespace: str, port: int, source: Mapping[str, str], home: str) -> bool:
        """Whether a pod with the labels `source` in the namespace `home` may connect to the port of that pod."""
        rules = self._rules("Ingress", pod, namespace)
        return rules is None or any(
            _port_fits(rule, port) and any(_peer_fits(peer, source, home, namespace) for peer in rule["from"])
            for rule in rules
        )

    def lets_out_to_pod(
        self, pod: Mapping[str, str], namespace: str, port: int, target: Mapping[str, str], home: str
    ) -> bool:
        """Whether that pod may connect to the port of a pod with the labels `target` in `home`."""
        rules = self._rules("Egress", pod, namespace)
        return rules is None or any(
            _port_fits(rule, port) and any(_peer_fits(peer, target, home, namespace) for peer in rule["to"])
            for rule in rules
        )

    def lets_out_to(self, pod: Mapping[str, str], namespace: str, port: int, address: str) -> bool:
        """Whether that pod may connect to the port of an address that is no pod's."""
        rules = self._rules("Egress", pod, namespace)
        return rules is None or any(
            _port_fits(rule, port) and any(_block_fits(peer, address) for peer in rule["to"]) for rule in rules
        )

    def _rules(self, direction: str, pod: Mapping[str, str], namespace: str) -> list[Object] | None:
        """All rules that hold for the pod, None when no policy isolates it."""
        policies = [
            each["spec"]
            for each in of_kind(self.objects, "NetworkPolicy", namespace).values()
            if direction in each["spec"]["policyTypes"] and selects(each["spec"]["podSelector"], pod)
        ]
        if not policies:
            return None
        return [rule for policy in policies for rule in policy.get(direction.lower(), [])]


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector finds something with these labels."""
    unknown = set(selector) - {"matchLabels", "matchExpressions"}
    assert not unknown, f"can't judge {unknown}"
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def _port_fits(rule: Object, port: int) -> bool:
    return "ports" not in rule or any(each["port"] == port for each in rule["ports"])


def _peer_fits(peer: Object, labels: Mapping[str, str], home: str, namespace: str) -> bool:
    if "ipBlock" in peer:
        return False
    where = (
        selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": home})
        if "namespaceSelector" in peer
        else home == namespace
    )
    return where and selects(peer.get("podSelector", {}), labels)


def _block_fits(peer: Object, address: str) -> bool:
    block = peer.get("ipBlock")
    if block is None:
        return False
    ip = ipaddress.ip_address(address)
    taken_out = [ipaddress.ip_network(each) for each in block.get("except", [])]
    return ip in ipaddress.ip_network(block["cidr"]) and not any(ip in network for network in taken_out)
