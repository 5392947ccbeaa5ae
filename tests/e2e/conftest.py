"""One running service for the end-to-end tests, and a real browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.browser import browser
from tests.model_server import ModelServer
from tests.service import Service

__all__ = ["browser"]


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    """A model, which a module's service may be told of by its `settings`; a module may want another."""
    with ModelServer(api_key="the-key-of-the-model") as running:
        yield running


@pytest.fixture(scope="module")
def service_settings() -> Mapping[str, str]:
    """What a module's service is given; a module may want others."""
    return {}


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, code_server: str, service_settings: Mapping[str, str]
) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("service"), code_server, **service_settings)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def recorder() -> Iterator[tuple[int, list[Any]]]:
    """The port of a server, and the headers of what it was asked."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing of it is for the tests' output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, seen
        server.shutdown()
