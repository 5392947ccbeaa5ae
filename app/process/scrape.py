"""Answers Prometheus on a port of its own (METRICS_PORT), beside a process' work.

Threads of the program's main process serve it, a few at most, so a slow scraper holds no worker. Network policies
decide who reaches the port, so it asks for no key; locally it listens on loopback.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import TCPServer
from threading import Thread, Timer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client.exposition import make_wsgi_app
from prometheus_client.registry import Collector

from app.process.settings import Settings

log = logging.getLogger(__name__)

THREADS = 2
"""Two Prometheus servers, as for availability, may ask at once."""

LIMIT = 5.0
"""s from a connection to the last byte of its answer; a scrape takes some 0.01."""

BIND_PAUSE = 2.0
"""s between two attempts to listen: a process that ends may hold the port for a moment."""

ACCEPT_PAUSE = 0.1
"""s after a connection that could not be accepted: no file descriptor is left."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a scrape comes every few seconds."""


class _Server(WSGIServer):
    request_queue_size = 8

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks DNS for a name of this host, and imports an encoding for that: a process that is
        # forked meanwhile would wait for ever for that module.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            time.sleep(ACCEPT_PAUSE)
            raise

    def finish_request(self, request: Any, client_address: Any) -> None:
        end = Timer(LIMIT, _cut_off, (request,))
        end.daemon = True
        end.start()
        try:
            super().finish_request(request, client_address)
        finally:
            end.cancel()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a scrape broke off", exc_info=True)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


def serve(settings: Settings, metrics: Collector) -> None:
    """Serve `metrics` at METRICS_PORT from threads, unless that is 0."""
    if settings.metrics_port:
        host = "127.0.0.1" if settings.runtime == "local" else settings.bind
        Thread(target=_run, args=(host, settings.metrics_port, metrics), name="metrics", daemon=True).start()


def _run(host: str, port: int, metrics: Collector) -> None:
    """A port that is taken is tried again until the process ends: metrics are no reason not to work."""
    kind = _ServerV6 if ":" in host else _Server
    while True:
        try:
            server = make_server(host, port, _application(metrics), kind, _Handler)
            break
        except OSError as error:
            log.warning("metrics can't be served at port %d: %s", port, error.strerror)
            time.sleep(BIND_PAUSE)
    for number in range(1, THREADS):
        Thread(target=_answer, args=(server,), name=f"metrics-{number}", daemon=True).start()
    _answer(server)


def _answer(server: WSGIServer) -> None:
    """Answer one request after the other until the process ends; others wait in the kernel."""
    while True:
        server.handle_request()


def _application(metrics: Collector) -> Callable[..., Iterable[bytes]]:
    """The library's, at /metrics alone; an error goes to the log."""
    shown = make_wsgi_app(metrics)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        status, text = "404 Not Found", b"The metrics are at /metrics.\n"
        if environ["PATH_INFO"] == "/metrics":
            try:
                return list(shown(environ, start_response))
            except Exception:
                log.exception("the metrics can't be shown")
                status, text = "500 Internal Server Error", b"see the log\n"
        start_response(status, [("Content-Type", "text/plain")])
        return [text]

    return answer


def _cut_off(connection: socket.socket) -> None:
    with suppress(OSError):  # It has just ended.
        connection.shutdown(socket.SHUT_RDWR)
