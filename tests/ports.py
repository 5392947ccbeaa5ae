"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

PORTS = range(12_000, 20_000)
"""Below those that the kernel gives to outgoing connections, one of which may take the port of a server that is killed
and started again; and beside those that `scripts/run` and the local runtime choose for themselves."""

TRIES = 100


def free_port() -> int:
    """A loopback port on which nothing listens at the moment."""
    for port in random.SystemRandom().sample(PORTS, TRIES):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"none of {TRIES} ports of {PORTS.start} to {PORTS.stop - 1} is free")


def listens(port: int) -> bool:
    """Whether a server accepts connections on this loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except OSError:
        return False
    return True
