"""A collector of traces for tests: takes OTLP over HTTP on loopback and keeps the spans.

With `hangs` it accepts requests and answers none until it is closed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.waiting import wait_for


@dataclass(frozen=True)
class Received:
    """A span as it came. Ids are hex; `parent` is "" for a trace's first; `service` is its process."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    attributes: dict[str, Any]
    failed: bool


class Collector:
    """The collector, as a context manager; `environment` has its clients send to it at once."""

    def __init__(self, hangs: bool = False) -> None:
        self.spans: list[Received] = []
        self.bodies: list[bytes] = []
        self._closed = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.bodies.append(body)
                if hangs:
                    collector._closed.wait(600)
                    return
                collector._take(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing of it is for the tests' output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _take(self, body: bytes) -> None:
        for each in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = {one.key: one.value.string_value for one in each.resource.attributes}
            for span in (one for scope in each.scope_spans for one in scope.spans):
                values = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                self.spans.append(
                    Received(resource["service.name"], span.name, *ids, span.kind, values, span.status.code == 2)
                )

    def wait_for(self, name: str, trace: str = "") -> Received:
        """The newest span of this name, and trace, once it is there."""

        def found() -> Received | None:
            fitting = [each for each in self.spans if each.name == name and trace in ("", each.trace)]
            return fitting[-1] if fitting else None

        return wait_for(found, f"the span {name}", lambda: str([(each.service, each.name) for each in self.spans]))

    def path(self, span: Received) -> list[str]:
        """The names from the first span of its trace down to this one."""
        by_id = {each.id: each for each in self.spans}
        names = [span.name]
        while span.parent in by_id:
            span = by_id[span.parent]
            names.insert(0, span.name)
        return names
