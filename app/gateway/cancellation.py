"""Ends calls to the model whose client has disconnected.

A request that waits for the model reads only from the model. So one thread watches the clients' sockets, and shuts the
model's connection when a client disconnects: the waiting request gets an error, and the provider stops writing and
billing.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from contextlib import suppress
from contextvars import ContextVar

log = logging.getLogger(__name__)


POLL_INTERVAL = 0.25
"""s between two checks for disconnected clients. The check itself must not block: under gevent all would wait."""


class ClientGone(Exception):
    """The client no longer waits for the answer."""


class LeftBetweenTries(ClientGone):
    """It left while the provider had no request of it."""


class Call:
    """One request to the model's API, which another thread may cancel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gone = threading.Event()
        self._socket: socket.socket | None = None

    @property
    def gone(self) -> bool:
        """Whether the client has hung up."""
        return self._gone.is_set()

    def attach(self, connection: socket.socket) -> None:
        """Shut this connection when the client disconnects, or now if it has."""
        with self._lock:
            self._socket = connection
            if self.gone:
                _shut(connection)

    def detach(self) -> None:
        """Let go of the connection: it returns to the pool, or is closed."""
        with self._lock:
            self._socket = None

    def wait_at_most(self, seconds: float) -> None:
        """Bound every further wait for bytes on the call's connection."""
        with self._lock:
            if self._socket is not None:
                self._socket.settimeout(seconds)

    def cancel(self) -> None:
        """The client has disconnected: shut the connection."""
        with self._lock:
            self._gone.set()
            if self._socket is not None:
                _shut(self._socket)

    def pause(self, seconds: float) -> None:
        """Wait before another try; raises `LeftBetweenTries` as soon as the client disconnects."""
        if self._gone.wait(seconds):
            raise LeftBetweenTries


CURRENT: ContextVar[Call | None] = ContextVar("CURRENT", default=None)
"""The present call, for the connection to attach itself to."""


def _shut(connection: socket.socket) -> None:
    try:
        # Not SSLSocket's own method: it would drop state that the reading thread uses.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        log.debug("the connection was closed already")


def _hung_up(number: int) -> bool:
    # gevent's `poll` does not report disconnects.
    with select.epoll() as probe:
        probe.register(number, select.EPOLLRDHUP)
        return bool(probe.poll(0))


class DisconnectWatcher:
    """Watches clients' sockets with one thread, started with the first. The caller of `watch` must call `unwatch`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoll: select.epoll | None = None
        self._pid = 0
        self._calls: dict[int, Call] = {}

    def watch(self, client: socket.socket, call: Call) -> int:
        """Cancel `call` when this client closes its end; returns the number for `unwatch`."""
        with self._lock:
            if self._epoll is None or self._pid != os.getpid():
                self._epoll, self._pid, self._calls = select.epoll(), os.getpid(), {}
                threading.Thread(target=self._run, args=(self._epoll,), name="disconnects", daemon=True).start()
            number = client.fileno()
            self._epoll.register(number, select.EPOLLRDHUP | select.EPOLLONESHOT)
            self._calls[number] = call
            return number

    def unwatch(self, number: int) -> None:
        """Stop watching this client; no error if it is not watched or closed already."""
        with self._lock:
            if self._epoll is not None and self._calls.pop(number, None) is not None:
                with suppress(OSError):
                    self._epoll.unregister(number)

    def _run(self, epoll: select.epoll) -> None:
        # Ends with the process.
        while True:
            time.sleep(POLL_INTERVAL)
            for number, _ in epoll.poll(0):
                with self._lock:
                    call = self._calls.get(number)
                    # The number may be another client's by now; under the lock it can't change.
                    if call is not None and _hung_up(number):
                        call.cancel()
