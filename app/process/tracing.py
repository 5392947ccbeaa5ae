"""Traces by OpenTelemetry, an optional extra: one from a call of the API to the cluster and to the agent's turn.

Off unless OpenTelemetry's own variable OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) is set.
While off, nothing of OpenTelemetry is imported and `span` costs one call. An attribute never holds a prompt, a key, a
user's id, or the name of an object or a file.

A trace begins with a request to the API. Everything else only continues one: a sweep or a watch has none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.process.spans import OFF, Span, Value

if TYPE_CHECKING:
    from app.process import tracing_export

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""The variables that switch traces on; the SDK reads all of its other variables itself."""

HEADER = "traceparent"
"""The header of requests and of messages, in the format of W3C's Trace Context."""

NONE: Mapping[str, Value] = MappingProxyType({})

_lock = Lock()
_export: tracing_export.Export | None = None
_ready = False


def enabled() -> bool:
    """Whether this process sends traces."""
    return _started() is not None


def span(
    name: str, attributes: Mapping[str, Value] = NONE, *, parent: str = "", kind: str = "internal", root: bool = False
) -> Span:
    """Begin a span within the current one, or within that of the traceparent `parent`. Without either it does nothing,
    unless `root`. `kind` is internal, server, client, producer or consumer."""
    export = _export if _ready else _started()
    return OFF if export is None else export.begin(name, attributes, parent, kind, root)


def record(name: str, attributes: Mapping[str, Value], begun: float, ended: float, parent: str, failure: str) -> None:
    """Add a span for something that is over: from `begun` to `ended` (s since the epoch), within `parent`."""
    export = _export if _ready else _started()
    if export is not None:
        export.record(name, attributes, begun, ended, parent, failure)


def traceparent() -> str:
    """The current span for a header, "" for none."""
    export = _export if _ready else _started()
    return "" if export is None else export.traceparent()


def dropped() -> int:
    """The spans this process could not send: its queue was full, or the collector did not take them."""
    return 0 if _export is None else _export.dropped


def _started() -> tracing_export.Export | None:
    """The exporter, started by the first caller; None while off. Web and the gateway call this as they start, after
    gevent has patched the threads that the exporter uses."""
    global _export, _ready
    with _lock:
        if not _ready:
            disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
            if not disabled and any(os.environ.get(name) for name in ENDPOINTS):
                try:
                    from app.process import tracing_export
                except ImportError as error:
                    log.error("traces are off: %s is missing; install the extra `tracing`", error.name)
                else:
                    _export = tracing_export.Export()
            _ready = True
    return _export
