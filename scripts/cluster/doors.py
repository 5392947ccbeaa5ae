"""Where the host reaches the cluster: ports of its loopback, and who listens there for the forwarder.

The sockets must be made before the process that makes them enters the cluster's network.
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
LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
GRACE = 2.0
"""Seconds until SIGKILL."""


@dataclass(frozen=True)
class Doors:
    """Ports of the host's loopback."""

    wanted: int
    """For the ingress controller."""
    web: int
    """The same, or 0 when somebody else has it: then no page of the cluster opens on the host."""
    api: int
    """Of the API server; any that was free."""

    @property
    def shown(self) -> int:
        """The port as a URL gives it, the same on the host and in the cluster's network; 0 when it leaves it out."""
        return 0 if self.web == WEB_PORT else self.web


def recall(layout: Layout) -> Doors | None:
    """What was opened last; None before the first time."""
    try:
        return Doors(**json.loads((layout.config / "doors.json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def open_doors(layout: Layout, wanted: int = 0) -> tuple[Doors, list[socket.socket]]:
    """Listen on the host, for the web on the port `wanted`; 0 is the one it had, and 80 at first.

    No sockets are returned when the forwarder that runs has them already. It is ended when it lacks one that is free
    now. Raises `ClusterError` when a port asked for is taken.
    """
    before = recall(layout) if running(layout, NAME) else None
    known = before or recall(layout)
    port = wanted or (known.wanted if known else WEB_PORT)
    if before and before.web == port:
        return before, []
    web = listen(port)
    if wanted and not web:
        raise ClusterError(f"Port {port} of this host is taken.")
    if before and not web:
        return before, []
    stop(recorded(layout, NAME), GRACE)
    # The same again if it can be had: there may be copies of the kubeconfig.
    api = (listen(known.api, v6=False) if known else []) or listen(0, v6=False)
    if not api:
        raise ClusterError("The host's loopback takes no listener.")
    doors = Doors(port, port if web else 0, api[0].getsockname()[1])
    (layout.config / "doors.json").write_text(json.dumps(asdict(doors)))
    return doors, [*api, *web]


def listen(port: int, v6: bool = True) -> list[socket.socket]:
    """Listening sockets on that port of loopback's addresses; none when one of them is taken.

    Browsers try both for a name below `localhost`: half of it would lead to somebody else.
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


def start_forwarder(layout: Layout, part: Component, doors: Doors, sockets: list[socket.socket]) -> None:
    """Give it the sockets, of which the first is the API server's; to be called in the cluster's network."""
    if not sockets:
        return
    api, *web = sockets
    if doors.shown:
        web += listen(doors.shown)
    targets = [(api, API_PORT), *((each, WEB_PORT) for each in web)]
    inherited = {VARIABLE: json.dumps([(each.fileno(), NODE_IP, port) for each, port in targets])}
    start(layout, NAME, part.command, part.environment | inherited, [each.fileno() for each, _ in targets])
    for each, _ in targets:
        each.close()
    certificates.write_kubeconfig(layout, "admin", layout.host_kubeconfig, f"https://127.0.0.1:{doors.api}")
