"""Answers Prometheus on a port of its own (METRICS_PORT), beside a process' work.

Threads of the program's main process serve it, a few at most, so a slow scraper holds no worker. Network policies
decide who reaches the port, so it asks for no key; locally it listens on loopback.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from threading import Event, Thread

from app.process.settings import Settings

log = logging.getLogger(__name__)

Exposition = Callable[[str], tuple[bytes, str]]
"""Gives the text and its content type by the header `Accept`."""

THREADS = 2
"""Two Prometheus servers, as for availability, may ask at once."""

LIMIT = 5.0
"""s from a connection to the last byte of its answer; a scrape takes some 0.01."""

HEAD_MAX = 8_192
"""Bytes of a request; Prometheus sends some 300."""

BIND_PAUSE = 2.0
"""s between two attempts to listen: a process that ends may hold the port for a moment."""

WAITING = 8
"""Connections that wait for a thread."""


class Refused(Exception):
    """The request is answered with this status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class ScrapeServer:
    """Serves `GET /metrics` at an address until `stop`."""

    def __init__(self, host: str, port: int, text: Exposition) -> None:
        self._address = (host, port)
        self._text = text
        self._stop = Event()
        self._listener: socket.socket | None = None
        self._thread = Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Listen from a thread. A port that is taken is tried again: metrics are no reason not to work."""
        self._thread.start()

    def stop(self) -> None:
        """End the threads."""
        self._stop.set()
        if self._listener is not None:
            self._listener.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
                self._listener = socket.create_server(self._address, family=family, backlog=WAITING)
                break
            except OSError as error:
                log.warning("metrics can't be served at port %d: %s", self._address[1], error.strerror)
                self._stop.wait(BIND_PAUSE)
        if self._listener is None:
            return
        # Looked at now and then, since closing a socket does not wake a thread that waits for it.
        self._listener.settimeout(1.0)
        for number in range(1, THREADS):
            Thread(target=self._serve, args=(self._listener,), name=f"metrics-{number}", daemon=True).start()
        self._serve(self._listener)

    def _serve(self, listener: socket.socket) -> None:
        while not self._stop.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                # Closed, or no file descriptor is left.
                self._stop.wait(0.1)
                continue
            with client:
                try:
                    self._answer(client, time.monotonic() + LIMIT)
                except OSError as error:
                    log.debug("a scrape broke off: %s", error)

    def _answer(self, client: socket.socket, deadline: float) -> None:
        try:
            body, content_type = self._text(_accept(_head(client, deadline)))
            status = HTTPStatus.OK
        except Refused as refusal:
            status, body, content_type = refusal.status, f"{refusal}\n".encode(), "text/plain"
        except OSError:
            raise
        except Exception:
            log.exception("the metrics can't be shown")
            status, body, content_type = HTTPStatus.INTERNAL_SERVER_ERROR, b"see the log\n", "text/plain"
        head = (
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        client.settimeout(_left(deadline))
        client.sendall(head.encode("latin-1") + body)


def serve(settings: Settings, text: Exposition) -> ScrapeServer | None:
    """Serve these metrics at METRICS_PORT; None if that is 0."""
    if not settings.metrics_port:
        return None
    server = ScrapeServer("127.0.0.1" if settings.runtime == "local" else settings.bind, settings.metrics_port, text)
    server.start()
    return server


def _left(deadline: float) -> float:
    """Seconds until the deadline; raises `TimeoutError` after it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


def _head(client: socket.socket, deadline: float) -> list[str]:
    """The lines of a request's head; raises `Refused` for one that is no scrape."""
    data = b""
    while b"\r\n\r\n" not in data:
        client.settimeout(_left(deadline))
        piece = client.recv(HEAD_MAX)
        data += piece
        if not piece or len(data) > HEAD_MAX:
            raise Refused(HTTPStatus.BAD_REQUEST)
    lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, _, rest = lines[0].partition(" ")
    if rest.partition(" ")[0].partition("?")[0] != "/metrics":
        raise Refused(HTTPStatus.NOT_FOUND)
    if method != "GET":
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED)
    return lines


def _accept(lines: list[str]) -> str:
    headers = (line.partition(":") for line in lines[1:])
    return next((value.strip() for name, _, value in headers if name.lower() == "accept"), "")
