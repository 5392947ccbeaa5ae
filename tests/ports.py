"""Ports for servers that tests start, and the end of connections to them."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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


@contextmanager
def refusing_port() -> Iterator[int]:
    """A loopback port that refuses connections for the block: it is taken, and nobody listens on it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def listens(port: int) -> bool:
    """Whether a server accepts connections on this loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except OSError:
        return False
    return True


def end(connection: socket.socket) -> None:
    """Close it at once, also where another thread reads from it or waits for one."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
