"""Answers Prometheus on a port of its own (METRICS_PORT), beside a process' work.

Threads of the program's main process serve it, so a slow scraper holds no worker. Network policies decide who reaches
the port, so it asks for no key; locally it listens on loopback.
"""

from __future__ import annotations

import logging
import socket
import time
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app
from prometheus_client.registry import Collector

from app.process.settings import Settings

log = logging.getLogger(__name__)

SILENCE = 5.0
"""s for which a client may send or take nothing; a scrape takes some 0.01."""

BIND_PAUSE = 2.0
"""s between two attempts to listen: a process that ends may hold the port for a moment."""


class _Handler(WSGIRequestHandler):
    timeout = SILENCE

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a scrape comes every few seconds."""


class _Server(ThreadingWSGIServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a scrape broke off", exc_info=True)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


def serve(settings: Settings, metrics: Collector) -> None:
    """Serve `metrics` at METRICS_PORT from a thread, unless that is 0."""
    if settings.metrics_port:
        host = "127.0.0.1" if settings.runtime == "local" else settings.bind
        Thread(target=_run, args=(host, settings.metrics_port, metrics), name="metrics", daemon=True).start()


def _run(host: str, port: int, metrics: Collector) -> None:
    """A port that is taken is tried again until the process ends: metrics are no reason not to work."""
    kind = _ServerV6 if ":" in host else _Server
    while True:
        try:
            server = make_server(host, port, make_wsgi_app(metrics), kind, _Handler)
            break
        except OSError as error:
            log.warning("metrics can't be served at port %d: %s", port, error.strerror)
            time.sleep(BIND_PAUSE)
    server.serve_forever()
