"""Opens the host's loopback ports that lead into the cluster, and starts the forwarder with them.

The sockets must be opened before this process enters the cluster's network.
"""

from __future__ import annotations

import errno
import json
import socket
from dataclasses import asdict, dataclass

from scripts.cluster import certificates
from scripts.cluster.components import WEB_PORT, Component
from scripts.cluster.errors import ClusterError
from scripts.cluster.forwarder import VARIABLE
from scripts.cluster.layout import API_PORT, NODE_IP, Layout
from scripts.cluster.processes import recorded, running, start, stop

NAME = "forwarder"
FILE = "ports.json"
"""Below the cluster's configuration."""
LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
GRACE = 2.0
"""Seconds until SIGKILL."""


@dataclass(frozen=True)
class HostPorts:
    """Ports of the host's loopback."""

    wanted: int
    """The ingress port that was asked for."""
    web: int
    """The ingress port, or 0 if it is taken: then the host can't open the cluster's pages."""
    api: int
    """A free port for the API server."""

    @property
    def url_port(self) -> int:
        """The ingress port in URLs, the same on the host and in the cluster's network; 0 if URLs omit it."""
        return 0 if self.web == WEB_PORT else self.web


def recall(layout: Layout) -> HostPorts | None:
    """The ports opened last; None before the first time."""
    try:
        return HostPorts(**json.loads((layout.config / FILE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def open_ports(layout: Layout, wanted: int = 0) -> tuple[HostPorts, list[socket.socket]]:
    """Listen on the host, for the ingress on port `wanted`; 0 is the port of the last time, at first 80.

    No sockets are returned if the running forwarder has them already. It is stopped if it lacks a port that is free
    now. Raises `ClusterError` if a port asked for is taken.
    """
    before = recall(layout) if running(layout, NAME) else None
    known = before or recall(layout)
    port = wanted or (known.wanted if known else WEB_PORT)
    if before and before.web == port:
        return before, []
    web = listen(port)
    if wanted and not web:
        raise ClusterError(f"Port {port} of this host is taken; choose another with --port.")
    if before and not web:
        return before, []
    stop(recorded(layout, NAME), GRACE)
    # The same port again if it is free: there may be copies of the kubeconfig.
    api = (listen(known.api, v6=False) if known else []) or listen(0, v6=False)
    if not api:
        raise ClusterError("No port of the host's loopback can be opened.")
    ports = HostPorts(port, port if web else 0, api[0].getsockname()[1])
    (layout.config / FILE).write_text(json.dumps(asdict(ports)))
    return ports, [*api, *web]


def listen(port: int, v6: bool = True) -> list[socket.socket]:
    """Listening sockets on that port of loopback's addresses; none if one of them is taken.

    Browsers try both addresses for a name below `localhost`, and would reach another program on the second one.
    """
    sockets: list[socket.socket] = []
    for family, address in LOOPBACK[: 2 if v6 else 1]:
        try:
            sockets.append(socket.create_server((address, port), family=family))
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue
            for each in sockets:
                each.close()
            return []
    return sockets


def start_forwarder(layout: Layout, part: Component, ports: HostPorts, sockets: list[socket.socket]) -> None:
    """Start the forwarder with these sockets, the API server's first. Call it in the cluster's network."""
    if not sockets:
        return
    api, *web = sockets
    if ports.url_port:
        web += listen(ports.url_port)
    targets = [(api, API_PORT), *((each, WEB_PORT) for each in web)]
    inherited = {VARIABLE: json.dumps([(each.fileno(), NODE_IP, port) for each, port in targets])}
    start(layout, NAME, part.command, part.environment | inherited, [each.fileno() for each, _ in targets])
    for each, _ in targets:
        each.close()
    certificates.write_kubeconfig(layout, "admin", layout.host_kubeconfig, f"https://127.0.0.1:{ports.api}")
