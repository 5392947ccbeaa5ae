"""Ends what is done for a client that has gone.

Who waits for a model reads only from the model. So one thread watches the clients' sockets, and shuts the connection
to the model of a client that hung up: who waits wakes with an error, and the provider stops writing, and billing, what
nobody reads.
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


LOOK = 0.25
"""s between two looks for clients that hung up. The look itself doesn't wait: under gevent all would wait with it."""


class ClientGone(Exception):
    """Whoever asked no longer waits for the answer."""


class Call:
    """One request to the model's API, which another thread may end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gone = threading.Event()
        self._socket: socket.socket | None = None

    @property
    def gone(self) -> bool:
        """Whether the client has hung up."""
        return self._gone.is_set()

    def attach(self, connection: socket.socket) -> None:
        """From now on this connection is what is shut when the client goes."""
        with self._lock:
            self._socket = connection
            if self.gone:
                _shut(connection)

    def detach(self) -> None:
        """The connection is the call's no more: it goes back to the pool, or is closed."""
        with self._lock:
            self._socket = None

    def wait_at_most(self, seconds: float) -> None:
        """Bound every further wait for bytes on the call's connection."""
        with self._lock:
            if self._socket is not None:
                self._socket.settimeout(seconds)

    def cancel(self) -> None:
        """The client has gone."""
        with self._lock:
            self._gone.set()
            if self._socket is not None:
                _shut(self._socket)

    def pause(self, seconds: float) -> None:
        """Let time pass; raises `ClientGone` as soon as the client goes."""
        if self._gone.wait(seconds):
            raise ClientGone


CURRENT: ContextVar[Call | None] = ContextVar("CURRENT", default=None)
"""The call that is being worked on here, for the connection to attach itself to."""


def _shut(connection: socket.socket) -> None:
    try:
        # The plain socket's own: an SSLSocket would drop its state under the thread that reads from it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        log.debug("the connection was closed already")


def _hung_up(number: int) -> bool:
    # gevent's `poll` knows no hanging up.
    with select.epoll() as probe:
        probe.register(number, select.EPOLLRDHUP)
        return bool(probe.poll(0))


class Hangups:
    """Watches clients' sockets with one thread, started with the first; whoever watches must unwatch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._epoll: select.epoll | None = None
        self._pid = 0
        self._calls: dict[int, Call] = {}

    def watch(self, client: socket.socket, call: Call) -> int:
        """Cancel `call` when this client closes its end; answers the number to unwatch it by."""
        with self._lock:
            if self._epoll is None or self._pid != os.getpid():
                self._epoll, self._pid, self._calls = select.epoll(), os.getpid(), {}
                threading.Thread(target=self._run, args=(self._epoll,), name="hangups", daemon=True).start()
            number = client.fileno()
            self._epoll.register(number, select.EPOLLRDHUP | select.EPOLLONESHOT)
            self._calls[number] = call
            return number

    def unwatch(self, number: int) -> None:
        """Forget this client; one that is not watched, or closed already, is no error."""
        with self._lock:
            if self._epoll is not None and self._calls.pop(number, None) is not None:
                with suppress(OSError):
                    self._epoll.unregister(number)

    def _run(self, epoll: select.epoll) -> None:
        # Ends with the process, as the clients do.
        while True:
            time.sleep(LOOK)
            for number, _ in epoll.poll(0):
                with self._lock:
                    call = self._calls.get(number)
                    # The number may be another client's by now; under the lock it stays who it is.
                    if call is not None and _hung_up(number):
                        call.cancel()
