"""The paths and addresses of a cluster's parts.

The addresses are the same in every cluster: each has its own network namespace, without a route out of it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from scripts.cluster.errors import ClusterError

NODE_IP = "10.77.0.1"
NODE_NETWORK = f"{NODE_IP}/24"
BRIDGE = "node0"
POD_NETWORK = "10.88.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
KUBERNETES_IP = "10.96.0.1"
"""Of the Service `kubernetes`: always the first of the network."""
DNS_IP = "10.96.0.10"
DOMAIN = "cluster.local"
API_PORT = 6443
API_URL = f"https://{NODE_IP}:{API_PORT}"
ETCD_URL = "http://127.0.0.1:2379"
PAUSE_IMAGE = "localhost/pause:1"
FOLDERS = Path("/var/lib/workspace-session-manager")
"""Holds the folder of each cluster."""


@dataclass(frozen=True)
class Layout:
    """The paths of the cluster `name`, all below `folder` except those the kernel determines."""

    name: str
    folder: Path

    @property
    def network_namespace(self) -> Path:
        return Path("/run/netns") / self.name

    @property
    def cgroup(self) -> str:
        """Of all its pods, in every hierarchy."""
        return f"/cluster-{self.name}"

    @property
    def pids(self) -> Path:
        return self.folder / "pids"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def pki(self) -> Path:
        return self.folder / "pki"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def volumes(self) -> Path:
        return self.folder / "volumes"

    @property
    def stores(self) -> Path:
        """Of the product on it: backups, restore points and conversations."""
        return self.folder / "stores"

    @property
    def containerd(self) -> Path:
        return self.folder / "containerd"

    @property
    def containerd_socket(self) -> Path:
        return self.containerd / "containerd.sock"

    @property
    def kubelet(self) -> Path:
        return self.folder / "kubelet"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, in the cluster's network."""
        return self.kubeconfig_of("admin")

    @property
    def host_kubeconfig(self) -> Path:
        """The same, on the host."""
        return self.kubeconfig_of("host")

    def kubeconfig_of(self, user: str) -> Path:
        return self.config / f"{user}.kubeconfig"


def from_environment() -> Layout:
    """The cluster named by CLUSTER and CLUSTER_DIR. Raises ClusterError for an invalid name."""
    name = os.environ.get("CLUSTER") or "sessions"
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?", name):
        raise ClusterError(
            f"CLUSTER={name} must be up to 20 lower-case letters, digits and inner hyphens, a letter first."
        )
    folder = os.environ.get("CLUSTER_DIR") or FOLDERS / name
    # A socket's path may have 107 bytes, and the longest below the folder has 34: kubelet/pod-resources/kubelet.sock.
    if len(os.fsencode(Path(folder).resolve())) > 70:
        raise ClusterError(f"CLUSTER_DIR={folder} is too long for the paths of sockets below it; use at most 70 bytes.")
    return Layout(name, Path(folder).resolve())
