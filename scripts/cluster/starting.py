"""Brings the cluster up. Every step does only what is missing, so `up` also repairs a cluster."""

from __future__ import annotations

import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from scripts.cluster import addons, certificates, components, host, host_ports, images, network
from scripts.cluster.components import HEALTH, Component
from scripts.cluster.errors import ClusterError
from scripts.cluster.layout import API_URL, DOMAIN, Layout
from scripts.cluster.processes import last_words, run, running, start, wait_ready, wait_until
from scripts.cluster.programs import Programs

LIMIT = 120.0
"""Seconds for each condition of a ready cluster; all of them take 20 to 30 s on 2 cores."""


class Starter:
    """One `up`. `run` returns when pods can be started, names resolved and volumes claimed."""

    def __init__(self, layout: Layout, programs: Programs, port: int = 0) -> None:
        """`port` of the host leads to the ingress controller; 0 is the port of the last time, at first 80."""
        self.layout = layout
        self.port = port
        self.programs = programs
        self.parts: dict[str, Component] = {}
        self.began = time.monotonic()

    def run(self) -> None:
        """Raises ClusterError; the parts started by then keep running until `down`."""
        self._prepare()
        if all(running(self.layout, name) for name in self.parts) and self._nothing_missing():
            self.say("is up already")
            return
        for name in ("etcd", "containerd"):
            self._start(name)
        self._wait_healthy("etcd")
        self._start("apiserver")
        wait_ready(self.layout, "containerd", self._containerd_answers, LIMIT)
        images.ensure_pause(self.layout)
        wait_ready(self.layout, "apiserver", lambda: _answers(f"{API_URL}/readyz"), LIMIT)
        self.say("the API server answers")
        for name in ("kubelet", "controller-manager", "scheduler", "proxy", "provisioner"):
            self._start(name)
        addons.apply(self.layout, self.programs, addons.objects())
        addons.apply_folders(self.layout, self.programs, self.programs.crds())
        for name in ("coredns", "traefik", "keda"):
            self._start(name)
        self._wait_usable()
        self.say(f"is up after {time.monotonic() - self.began:.0f} s")

    def say(self, text: str) -> None:
        print(f"cluster {self.layout.name}: {text}", file=sys.stderr, flush=True)

    def _prepare(self) -> None:
        layout = self.layout
        host.remember(layout)
        for folder in (layout.pids, layout.logs, layout.config / "cni", layout.config / "keda", layout.volumes):
            folder.mkdir(parents=True, exist_ok=True)
        layout.pki.mkdir(mode=0o700, exist_ok=True)
        ports, sockets = host_ports.open_ports(layout, self.port)
        network.create(layout)
        host.create_cgroups(layout)
        certificates.create(layout)
        self._keda_certificates()
        for file, text in components.files(layout).items():
            file.write_text(text)
        self.parts = components.components(layout, self.programs)
        host_ports.start_forwarder(layout, self.parts[host_ports.NAME], ports, sockets)
        if not ports.web:
            self.say(
                f"port {ports.wanted} of this host is taken, so only `exec` reaches the cluster's pages; "
                "choose another port with: scripts/cluster/cluster demo --port 8080"
            )

    def _keda_certificates(self) -> None:
        """Under the names its operator looks for."""
        pki, folder = self.layout.pki, self.layout.config / "keda"
        namespace = components.KEDA_NAMESPACE
        names = tuple(f"DNS:keda-operator.{namespace}.svc{end}" for end in ("", f".{DOMAIN}"))
        certificates.issue(self.layout, "keda-server", "/CN=keda-operator", names)
        for source, name in (("ca.crt", "ca.crt"), ("keda-server.crt", "tls.crt"), ("keda-server.key", "tls.key")):
            (folder / name).write_bytes((pki / source).read_bytes())

    def _start(self, name: str) -> None:
        part = self.parts[name]
        start(self.layout, name, part.command, part.environment)

    def _wait_healthy(self, name: str) -> None:
        wait_ready(self.layout, name, lambda: _answers(HEALTH[name]), LIMIT)

    def _containerd_answers(self) -> bool:
        try:
            images.ctr(self.layout, "version", timeout=5.0)
        except ClusterError:
            return False
        return True

    def _nothing_missing(self) -> bool:
        """Whether a cluster whose parts all run is also usable; an earlier `up` may have ended half-way."""
        return all(_answers(url) for url in HEALTH.values()) and self._node_ready() and self._has_default_class()

    def _has_default_class(self) -> bool:
        try:
            return bool(self._kubectl("get", "storageclass", "-o", "name").strip())
        except ClusterError:
            return False

    def _wait_usable(self) -> None:
        for name in HEALTH:
            self._wait_healthy(name)
        self._wait("the node to be ready", self._node_ready, "kubelet")
        self.say("the node is ready")
        self._wait("names to resolve", self._names_resolve, "coredns")
        addons.apply(self.layout, self.programs, [addons.probe_claim()])
        self._wait("a volume to be bound", self._claim_bound, "provisioner")
        self._kubectl("delete", "pvc", "-n", addons.PROBE["namespace"], addons.PROBE["name"], "--timeout=60s")

    def _wait(self, what: str, condition: Callable[[], bool], part: str) -> None:
        if not wait_until(condition, LIMIT):
            raise ClusterError(f"Waited {LIMIT:.0f} s in vain for {what}.\n{last_words(self.layout, part)}")

    def _kubectl(self, *arguments: str) -> str:
        return addons.kubectl(self.layout, self.programs, *arguments)

    def _node_ready(self) -> bool:
        try:
            node = json.loads(self._kubectl("get", "node", self.layout.name, "-o", "json"))
        except ClusterError:
            return False
        return any(item["type"] == "Ready" and item["status"] == "True" for item in node["status"]["conditions"])

    def _names_resolve(self) -> bool:
        command = ["getent", "hosts", f"kubernetes.default.svc.{DOMAIN}"]
        try:
            run(network.with_resolver(self.layout, command), timeout=10.0)
        except ClusterError:
            return False
        return True

    def _claim_bound(self) -> bool:
        probe = addons.PROBE
        phase = self._kubectl("get", "pvc", "-n", probe["namespace"], probe["name"], "-o", "jsonpath={.status.phase}")
        return phase == "Bound"


def _answers(url: str) -> bool:
    """Whether a part reports that it is healthy. Its certificate is self-signed and not checked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def result(layout: Layout, programs: Programs) -> str:
    """What `up` prints: lines of NAME=VALUE, for the host; `exec` sets its own."""
    return f"KUBECONFIG={layout.host_kubeconfig}\nKUBECTL={Path(programs['kubectl'])}\n"
