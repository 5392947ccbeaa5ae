"""gunicorn's gevent worker, with deadlines for clients, and problem documents for malformed HTTP.

A connection, a stream or a waiting call costs a greenlet, not a thread. Web, forward auth and the gateway use it;
processes that call an object store, and Celery's workers, run without gevent.

gunicorn itself answers a malformed request (a header too long, a broken request line) with an HTML page; clients of
this service read JSON.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import gevent
from gevent import monkey, socket
from gevent.event import Event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.http import errors  # type: ignore[import-untyped]
from gunicorn.util import write_nonblock  # type: ignore[import-untyped]
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]

CLIENT_ERRORS: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (errors.LimitRequestLine, HTTPStatus.REQUEST_URI_TOO_LONG),
    (errors.LimitRequestHeaders, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (errors.ExpectationFailed, HTTPStatus.EXPECTATION_FAILED),
    (errors.UnsupportedTransferCoding, HTTPStatus.BAD_REQUEST),
    (errors.ForbiddenProxyRequest, HTTPStatus.FORBIDDEN),
    (errors.ParseException, HTTPStatus.BAD_REQUEST),
)
"""The status for errors of a client before the app sees the request; the first match counts."""

HEAD_LIMIT = 10.0
"""s from the first byte of a request to the end of its head."""

PATIENCE = 20.0
"""s that a client has to send a body, and to read a piece of an answer, besides the time for its bytes."""

SLOWEST = 8_192
"""bytes/s: a client that is slower over more than `PATIENCE` is disconnected."""

UNREADABLE = "The request could not be read as HTTP."

UNREAD = 65_536
"""Bytes of a body that are read and dropped, if the app did not read it, to keep the connection open. With more, it is
closed: gunicorn would read all, 1 KiB at a time, before the next request."""

LINGER, LINGER_BYTES = 1.0, 1_048_576
"""s and bytes for which the rest of a request is read and dropped before its connection is closed."""

BEAT = 1.0
"""s between two of a worker's heartbeats."""

POLL_INTERVAL = 0.25
"""s between two checks of the requests that an ending worker still has to answer."""

ENDING = 1.0
"""s before gunicorn kills the worker, in which running requests are ended: they may have something to store."""


class Client:
    """A client's connection, with a deadline for each request and answer. A client that misses one is disconnected.

    `idle` (s) is how long it may be open without a request.
    """

    def __init__(self, connection: Any, idle: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._idle = idle
        self._clock = clock
        self._ended = False
        self.rest()

    def rest(self) -> None:
        """The connection is between two requests."""
        self.resting = True
        self._deadline = self._clock() + self._idle

    def work(self) -> None:
        """The head of a request has arrived. Its body has time, more with each byte."""
        self.resting = False
        self._deadline = self._clock() + PATIENCE

    def end(self) -> None:
        """Close the connection while the worker waits for its next request."""
        self._ended = True
        self._connection.shutdown(socket.SHUT_RDWR)

    def recv(self, size: int) -> bytes:
        data: bytes = self._bounded(self._deadline - self._clock(), self._connection.recv, size)
        if self.resting:
            self.resting = False
            self._deadline = self._clock() + HEAD_LIMIT
        else:
            self._deadline += len(data) / SLOWEST
        return data

    def sendall(self, data: bytes) -> None:
        self._bounded(PATIENCE + len(data) / SLOWEST, self._connection.sendall, data)

    def _bounded(self, seconds: float, act: Callable[[Any], Any], argument: Any) -> Any:
        # Holds for a whole `sendall`: gevent counts from its beginning (gevent.socket).
        self._connection.settimeout(max(0.001, seconds))
        try:
            return act(argument)
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, "The client is too slow.") from None
        except OSError as error:
            if self._ended:
                raise ConnectionResetError(errno.ECONNRESET, "The worker ended the connection.") from error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class ProblemWorker(GeventWorker):
    """Serves each connection in a greenlet. At most `per_peer` connections come from one address, 0 for no limit;
    connections from this machine are not counted."""

    per_peer = 0

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._asked_to_end = Event()
        self._clients: set[Client] = set()
        self._peers: Counter[str] = Counter()

    def patch(self) -> None:
        # Not aggressive, which would remove `select.epoll`; the gateway uses it without blocking.
        monkey.patch_all(aggressive=False)
        given: list[Any] = self.sockets  # type: ignore[has-type]
        self.sockets = [socket.socket(each.FAMILY, socket.SOCK_STREAM, fileno=each.sock.detach()) for each in given]

    def run(self) -> None:
        pool = Pool(self.worker_connections)
        servers = []
        for listener in self.sockets:
            listener.setblocking(1)
            server = StreamServer(listener, handle=partial(self.handle, listener), spawn=pool)
            # Otherwise one process accepts all connections that arrive at once.
            server.max_accept = 1
            server.start()
            servers.append(server)
        while self.alive:
            self.notify()
            self._asked_to_end.wait(BEAT)
        for server in servers:
            server.close()
        self._finish(pool)

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self._asked_to_end.set()

    def _finish(self, pool: Pool) -> None:
        """Let running requests finish for a while; close idle connections."""
        # gunicorn counts from its signal, which reaches the worker a moment later.
        deadline = time.monotonic() + max(0.0, self.cfg.graceful_timeout - POLL_INTERVAL - ENDING)
        while pool and time.monotonic() < deadline:
            for client in [each for each in self._clients if each.resting]:
                self._clients.discard(client)
                with suppress(OSError):  # The client has just left.
                    client.end()
            self.notify()
            pool.join(timeout=min(POLL_INTERVAL, max(0.0, deadline - time.monotonic())))
        pool.kill(timeout=ENDING)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        peer = "" if _local(addr) else addr[0]
        if peer and self.per_peer and self._peers[peer] >= self.per_peer:
            client.close()
            return
        held = Client(client, float(self.cfg.keepalive))
        self._clients.add(held)
        self._peers[peer] += 1
        try:
            # Not GeventWorker's own `handle`: it would use the socket directly, without `Client`.
            super(GeventWorker, self).handle(listener, held, addr)
        finally:
            self._clients.discard(held)
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

    def timeout_ctx(self) -> AbstractContextManager[None]:
        # `Client` has the deadlines.
        return nullcontext()

    def handle_request(self, listener_name: Any, req: Any, sock: Client, addr: Any) -> None:
        sock.work()
        super().handle_request(listener_name, req, sock, addr)
        if req.body.failed:
            raise StopIteration
        if len(req.body.read(UNREAD)) == UNREAD:
            _linger(sock)
            raise StopIteration
        sock.rest()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        status = next((status for kind, status in CLIENT_ERRORS if isinstance(exc, kind)), None)
        text = UNREADABLE
        if status is None:
            # Not by gunicorn's own handler, which logs the address of the request, query and all.
            self.log.error("a request failed outside the application", exc_info=exc)
            status, text = HTTPStatus.INTERNAL_SERVER_ERROR, "The request could not be handled."
        try:
            write_nonblock(client, answer(status, uuid4().hex, text))
            _linger(client)
        except OSError:
            self.log.debug("a client left before it got the answer to its malformed request")


def _linger(client: Any) -> None:
    """Stop sending, and read on for a while: closing a connection with unread data resets it, and the answer may be
    lost."""
    client.shutdown(socket.SHUT_WR)
    left = LINGER_BYTES
    with gevent.Timeout(LINGER, False):
        while left > 0 and (data := client.recv(UNREAD)):
            left -= len(data)


def worker_for(per_peer: int) -> type[ProblemWorker]:
    """A worker that takes at most `per_peer` connections from one address."""
    return type("ProblemWorker", (ProblemWorker,), {"per_peer": per_peer})


def listen_at(host: str, port: int) -> str:
    """An address in gunicorn's format."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _local(addr: Any) -> bool:
    """Whether a connection comes from this machine, or over a socket without addresses."""
    return not isinstance(addr, tuple) or not addr[0] or ipaddress.ip_address(addr[0].partition("%")[0]).is_loopback


def answer(status: HTTPStatus, request_id: str, text: str = UNREADABLE) -> bytes:
    """A whole HTTP response with a problem document; the connection ends with it."""
    problem = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": text,
        "instance": "",
        "error": "malformed_request" if status < 500 else "internal_error",
        "request_id": request_id,
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {int(status)} {status.phrase}\r\nConnection: close\r\nX-Request-Id: {request_id}\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body
