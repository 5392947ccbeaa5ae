"""gunicorn's gevent worker, with deadlines for what clients send and take, and problem documents for what is no HTTP.

A connection, a stream or a waiting call costs a greenlet here, no thread. It is for web, door and gateway; what calls
an object store, and Celery's workers, stay without gevent.

A request that never reaches the app (a header too long, a broken request line) gets gunicorn's HTML
page otherwise, in a service whose clients read JSON.
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
"""The status for what a client did wrong before the app could say so; the first that fits."""


HEAD_LIMIT = 10.0
"""s from the first byte of a request to the end of its head."""

PATIENCE = 20.0
"""s that a client has for a body, and to take a piece of an answer, besides what its bytes take."""

SLOWEST = 8_192
"""bytes/s: who is slower than that over more than `PATIENCE` is not waited for."""

UNREAD = 65_536
"""Bytes of a body that the app did not want which are read to keep its connection. With more of them it is closed:
gunicorn would read all, 1 KiB at a time, before the next request."""

LINGER, LINGER_BYTES = 1.0, 1_048_576
"""s and bytes that the rest of a request is read, and thrown away, before its connection is closed."""

LOOK = 0.25
"""s between two looks whether the worker is to end; its heartbeat, too."""

ENDING = 1.0
"""s before gunicorn kills the worker in which what still runs is ended here: it may have something to write down."""


class Client:
    """A client's connection, each of whose requests and answers has a deadline. One that is late counts as gone.

    `idle` (s) is how long it may be open without a request.
    """

    def __init__(self, connection: Any, idle: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._idle = idle
        self._clock = clock
        self._ended = False
        self.rest()

    def rest(self) -> None:
        """It is between two requests: the next one may come, or none."""
        self.resting = True
        self._deadline = self._clock() + self._idle

    def work(self) -> None:
        """The head of a request has come, maybe along with the one before. Its body has time, more with each byte."""
        self.resting = False
        self._deadline = self._clock() + PATIENCE

    def end(self) -> None:
        """Close it under whoever waits for its next request."""
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
        # Of a whole `sendall`, too: gevent counts it from its beginning (gevent.socket).
        self._connection.settimeout(max(0.001, seconds))
        try:
            return act(argument)
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, "The client is too slow.") from None
        except OSError as error:
            if self._ended:
                raise ConnectionResetError(errno.ECONNRESET, "It was ended here.") from error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class ProblemWorker(GeventWorker):
    """Serves each connection in a greenlet. At most `per_peer` of them come from one address, 0 for as many as there
    may be; those of this machine are not counted."""

    per_peer = 0

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._clients: set[Client] = set()
        self._peers: Counter[str] = Counter()

    def patch(self) -> None:
        # Not aggressively: `select.epoll` goes on being there, for those who ask it without waiting.
        monkey.patch_all(aggressive=False)
        given: list[Any] = self.sockets  # type: ignore[has-type]
        self.sockets = [socket.socket(each.FAMILY, socket.SOCK_STREAM, fileno=each.sock.detach()) for each in given]

    def run(self) -> None:
        pool = Pool(self.worker_connections)
        servers = []
        for listener in self.sockets:
            listener.setblocking(1)
            server = StreamServer(listener, handle=partial(self.handle, listener), spawn=pool)
            # Else one process takes all that come at once, and the others have none.
            server.max_accept = 1
            server.start()
            servers.append(server)
        while self.alive:
            self.notify()
            gevent.sleep(LOOK)
        for server in servers:
            server.close()
        self._finish(pool)

    def _finish(self, pool: Pool) -> None:
        """Let what is asked for be answered for a while; who asks for nothing is not waited for."""
        # gunicorn counts from its signal, of which the worker hears a look later.
        deadline = time.monotonic() + max(0.0, self.cfg.graceful_timeout - LOOK - ENDING)
        while pool and time.monotonic() < deadline:
            for client in [each for each in self._clients if each.resting]:
                self._clients.discard(client)
                with suppress(OSError):  # it left just now
                    client.end()
            self.notify()
            pool.join(timeout=min(LOOK, max(0.0, deadline - time.monotonic())))
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
            # The base's own `handle` makes the socket a waiting one and asks it directly.
            super(GeventWorker, self).handle(listener, held, addr)
        finally:
            self._clients.discard(held)
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

    def timeout_ctx(self) -> AbstractContextManager[None]:
        # `Client` knows better when a request has begun.
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
        if status is None:
            super().handle_error(req, client, addr, exc)
            return
        try:
            write_nonblock(client, answer(status, uuid4().hex))
            _linger(client)
        except OSError:
            self.log.debug("a client left before it was told that its request is malformed")


def _linger(client: Any) -> None:
    """Send nothing more, and read on for a while: closed with something unread, a connection is reset, and what was
    answered may be lost with it."""
    client.shutdown(socket.SHUT_WR)
    left = LINGER_BYTES
    with gevent.Timeout(LINGER, False):
        while left > 0 and (data := client.recv(UNREAD)):
            left -= len(data)


def worker_for(per_peer: int) -> type[ProblemWorker]:
    """A worker that takes at most `per_peer` connections from one address."""
    return type("ProblemWorker", (ProblemWorker,), {"per_peer": per_peer})


def listen_at(host: str, port: int) -> str:
    """An address as gunicorn wants it to listen at."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _local(addr: Any) -> bool:
    """Whether a connection comes from this machine, or over a socket without addresses."""
    return not isinstance(addr, tuple) or not addr[0] or ipaddress.ip_address(addr[0].partition("%")[0]).is_loopback


def answer(status: HTTPStatus, request_id: str) -> bytes:
    """A whole HTTP response with a problem document; the connection ends with it."""
    problem = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": "The request could not be read as HTTP.",
        "instance": "",
        "error": "malformed_request",
        "request_id": request_id,
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {int(status)} {status.phrase}\r\nConnection: close\r\nX-Request-Id: {request_id}\r\n"
        f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("latin-1") + body
