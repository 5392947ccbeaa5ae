"""The cluster's network namespace: its own addresses and no way out, so that no test reaches other networks."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from scripts.cluster.errors import ClusterError
from scripts.cluster.layout import BRIDGE, DOMAIN, NODE_IP, NODE_NETWORK, SERVICE_NETWORK, Layout
from scripts.cluster.processes import run

CLONE_NEWNET = 0x40000000
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # Pods of one node reach each other through the bridge; the answers too must pass where addresses are rewritten.
    "net/bridge/bridge-nf-call-iptables": "1",
}


def create(layout: Layout) -> None:
    """Create the namespace with loopback and the node's address; completes a half-made one."""
    if not layout.network_namespace.exists():
        run(["ip", "netns", "add", layout.name])
    enter(layout)
    links = run(["ip", "-brief", "link"])
    if not any(line.startswith(f"{BRIDGE} ") for line in links.splitlines()):
        # A bridge without ports stands in for a network card: it needs no counterpart outside.
        run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "link", "set", "lo", "up"])
    run(["ip", "address", "replace", NODE_NETWORK, "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    # Service addresses are rewritten on their way out; without a route they would never set out.
    run(["ip", "route", "replace", SERVICE_NETWORK, "dev", BRIDGE])
    for name, value in SYSCTLS.items():
        file = Path("/proc/sys") / name
        if file.exists():
            file.write_text(value)


def enter(layout: Layout) -> None:
    """Move this thread, and processes it starts from now on, into the cluster's network. Raises ClusterError."""
    try:
        descriptor = os.open(layout.network_namespace, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ClusterError("The cluster is not up.") from error
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise ClusterError(f"Can't enter {layout.network_namespace}: {os.strerror(number)}")
    finally:
        os.close(descriptor)


def members(layout: Layout) -> list[int]:
    """The ids of all processes in the namespace."""
    if not layout.network_namespace.exists():
        return []
    return [int(word) for word in run(["ip", "netns", "pids", layout.name]).split()]


def delete(layout: Layout) -> None:
    """Remove the namespace; with its last process the kernel removes its content."""
    if layout.network_namespace.exists():
        run(["ip", "netns", "delete", layout.name])


def resolver(layout: Layout) -> Path:
    return layout.config / "resolv.conf"


def resolver_text() -> str:
    """A resolv.conf with which programs outside the cluster use the pods' names."""
    return f"nameserver {NODE_IP}\nsearch svc.{DOMAIN} {DOMAIN}\noptions ndots:3 timeout:2 attempts:2\n"


def with_resolver(layout: Layout, command: Sequence[str]) -> list[str]:
    """The command as one that sees the cluster's resolver, in a mount namespace of its own, in place of the machine's.

    The machine's name server can't be reached from the cluster's network.
    """
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    return ["unshare", "--mount", "--propagation=slave", "sh", "-c", script, str(resolver(layout)), *command]
