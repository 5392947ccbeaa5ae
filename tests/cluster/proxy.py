"""A TCP proxy in front of the API server, to cut connections that neither side closed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from urllib.parse import urlsplit

from kubernetes import client

from tests.contract.cluster import TIMEOUT
from tests.ports import end
from workers.runtime.kubernetes.api_server import find_cluster

CHUNK = 65_536


class Proxy:
    """Forwards bytes on, both ways. While it holds, new connections are taken and get no answer."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = Event()
        self._open.set()
        self._sockets: list[socket.socket] = []

    def run(self) -> None:
        """Until `close`."""
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                Thread(target=self._connect, args=(near,), daemon=True).start()

    def cut(self) -> None:
        """End every connection, as a dead router does; new ones wait for `release`."""
        self._open.clear()
        for each in self._sockets:
            end(each)
        self._sockets.clear()

    def release(self) -> None:
        self._open.set()

    def close(self) -> None:
        end(self._listener)
        self.cut()
        self.release()

    def _connect(self, near: socket.socket) -> None:
        if not self._open.wait(TIMEOUT):
            return
        far = socket.create_connection(self._target, timeout=TIMEOUT)
        far.settimeout(None)
        self._sockets.append(far)
        Thread(target=_pass_on, args=(far, near), daemon=True).start()
        _pass_on(near, far)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(CHUNK):
            target.sendall(chunk)
    end(source)
    end(target)


@contextmanager
def proxied() -> Iterator[tuple[Proxy, client.Configuration]]:
    """A proxy in front of the API server, and how to speak to that through it."""
    configuration = find_cluster()
    server = urlsplit(configuration.host)
    assert server.hostname is not None
    proxy = Proxy(server.hostname, server.port or 443)
    configuration.host = f"https://127.0.0.1:{proxy.port}"
    # The certificate is for the server's own address.
    configuration.tls_server_name = server.hostname
    thread = Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy, configuration
    finally:
        proxy.close()
        thread.join(TIMEOUT)
