"""Takes the cluster down and leaves nothing behind, whatever state it is in.

The order matters: a part that starts processes ends before them, and the API server ends after the parts that need it.
Then every process left in the cluster's cgroups or network is killed, also those of parts that were killed before they
could clean up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from scripts.cluster import host, network
from scripts.cluster.errors import ClusterError
from scripts.cluster.layout import FOLDERS, Layout
from scripts.cluster.processes import identity, recorded, stop, wait_until

GRACE = {
    "forwarder": 2.0,
    "traefik": 5.0,
    "keda": 5.0,
    "kubelet": 10.0,
    "proxy": 5.0,
    "scheduler": 5.0,
    "controller-manager": 5.0,
    "provisioner": 2.0,
    "coredns": 2.0,
}
"""In this order, with the seconds until SIGKILL: first the parts that would start pods or volumes again."""
GRACE_AFTER = {
    "containerd": 10.0,
    # It waits for every open watch before it ends.
    "apiserver": 2.0,
    "etcd": 10.0,
}


def down(layout: Layout) -> bool:
    """Stop and remove everything; False if there was nothing. Raises ClusterError for what can't be removed."""
    if not layout.folder.exists() and not layout.network_namespace.exists():
        return False
    if layout.folder.exists() and not host.is_ours(layout):
        raise ClusterError(f"{layout.folder} is not the folder of a cluster and is left as it is.")
    _end(layout, GRACE)
    # The pods: only the kubelet, stopped above, would start them again.
    _kill("pods", lambda: host.processes_in_cgroups(layout))
    _end(layout, GRACE_AFTER)
    _kill("processes in its network", lambda: set(network.members(layout)) - _own_family())
    host.unmount_below(layout.folder)
    network.delete(layout)
    if not wait_until(lambda: host.remove_cgroups(layout), 30.0):
        raise ClusterError(f"The cgroups {layout.cgroup} can't be removed: processes still run in them.")
    host.restore(layout)
    if layout.folder.exists():
        host.remove_folder(layout)
    # Created with the first cluster, removed with the last one, and only if it is empty.
    if layout.folder.parent == FOLDERS:
        with contextlib.suppress(OSError):
            FOLDERS.rmdir()
    return True


def _end(layout: Layout, graces: dict[str, float]) -> None:
    for name, grace in graces.items():
        stop(recorded(layout, name), grace)


def _kill(what: str, find: Callable[[], set[int]]) -> None:
    """SIGKILL the processes that `find` returns until there are none: a process may start another before it ends."""

    def none_left() -> bool:
        found = find()
        for pid in found:
            process = identity(pid)
            if process:
                stop(process, 0.0)
        return not found

    if not wait_until(none_left, 60.0):
        raise ClusterError(f"{len(find())} {what} can't be killed.")


def _own_family() -> set[int]:
    """This process and those above it: `down` may itself be run from within the network."""
    family: set[int] = set()
    pid = os.getpid()
    while pid > 1:
        family.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            break
    return family
