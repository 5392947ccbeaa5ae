"""The command line of the cluster, started by the script `cluster` in this folder."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.cluster import components, network, programs
from scripts.cluster import layout as layouts
from scripts.cluster.errors import ClusterError
from scripts.cluster.layout import Layout
from scripts.cluster.processes import running

LOCK_LIMIT = 7_200.0
"""Seconds to wait for another `up` or `down` of the same cluster; an `up` may build everything."""
USAGE = "usage: cluster build | up [--port N] | demo [--port N] | down | status | exec CMD… | load IMAGE"


def main(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    try:
        layout = layouts.from_environment()
        if command in ("up", "demo") and (port := port_of(rest)) is not None:
            return up(layout, port) if command == "up" else demo(layout, port)
        if command == "build" and not rest:
            return build()
        if command == "down" and not rest:
            return down(layout)
        if command == "status" and not rest:
            return status(layout)
        if command == "exec" and rest:
            return execute(layout, rest)
        if command == "load" and len(rest) == 1:
            return load(layout, rest[0])
        if command == "provision" and not rest:
            return provision(layout)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    print(USAGE, file=sys.stderr)
    return 2


def port_of(rest: list[str]) -> int | None:
    """The port in the arguments of `up`, 0 if there is none; None for other arguments."""
    if not rest:
        return 0
    asked = rest[1] if len(rest) == 2 and rest[0] == "--port" else ""
    return int(asked) if asked.isdigit() and 0 < int(asked) < 65_536 else None


def build() -> int:
    """Build what is missing, and start nothing."""
    programs.ensure()
    return 0


def up(layout: Layout, port: int) -> int:
    from scripts.cluster import starting

    built = programs.ensure()
    with only_one(layout):
        starting.Starter(layout, built, port).run()
    print(starting.result(layout, built), end="", flush=True)
    return 0


def demo(layout: Layout, port: int) -> int:
    """Start the cluster and everything on it."""
    from scripts.cluster import demo, starting

    built, archives = programs.ensure(), demo.build_images()
    with only_one(layout):
        starting.Starter(layout, built, port).run()
    print(demo.run(layout, built, archives) + starting.result(layout, built), end="", flush=True)
    return 0


def down(layout: Layout) -> int:
    from scripts.cluster import stopping

    with only_one(layout):
        began = time.monotonic()
        found = stopping.down(layout)
    done = f"was removed after {time.monotonic() - began:.0f} s" if found else "was not up"
    print(f"cluster {layout.name}: {done}", file=sys.stderr)
    return 0


def status(layout: Layout) -> int:
    """Print a line for each part; exit status 0 if all run, else 3."""
    names = list(components.components(layout, programs.built()))
    found = {name: running(layout, name) for name in names}
    for name, process in found.items():
        print(f"{name:20}{f'runs ({process.pid})' if process else 'does not run'}")
    return 0 if all(found.values()) else 3


def execute(layout: Layout, command: list[str]) -> int:
    """Become the command: in the cluster's network, with its resolver, as its administrator, with kubectl on PATH."""
    network.enter(layout)
    built = programs.built()
    kubectl = built["kubectl"]
    os.environ |= {"KUBECONFIG": str(layout.kubeconfig), "KUBECTL": kubectl}
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(kubectl).parent}"
    line = network.with_resolver(layout, command)
    os.execvp(line[0], line)


def load(layout: Layout, image: str) -> int:
    from scripts.cluster import images

    if not layout.containerd_socket.exists():
        raise ClusterError("The cluster is not up; start it with: scripts/cluster/cluster up")
    for name in images.load(layout, image):
        print(name)
    return 0


def provision(layout: Layout) -> int:
    """Run the part `provisioner`; not for users."""
    from scripts.cluster import provisioner

    provisioner.run(layout)
    return 0


@contextlib.contextmanager
def only_one(layout: Layout) -> Iterator[None]:
    """Exclude other `up` and `down` of the same cluster."""
    deadline = time.monotonic() + LOCK_LIMIT
    # The kernel frees an abstract socket's name when its owner ends; no file is left behind.
    with socket.socket(socket.AF_UNIX) as lock:
        while True:
            try:
                lock.bind(f"\0workspace-session-manager/cluster/{layout.name}")
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"Another up or down of this cluster has run for {LOCK_LIMIT:.0f} s; end it first."
                    ) from None
                time.sleep(0.2)
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
