"""The part of tracing that needs OpenTelemetry; imported only where traces are on (app/process/tracing.py).

Spans are sent in batches by a thread of their own, from a queue with a limit: a collector that is slow or away costs
spans, which are counted, and no request waits for it. The exporter reads its other variables itself, such as
OTEL_EXPORTER_OTLP_HEADERS.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from app.process.spans import OFF, Span, Value

log = logging.getLogger(__name__)

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
"""The semantic conventions that names of attributes follow, those for generative AI (`gen_ai.*`) included."""

NAMESPACE = "workspace-session-manager"

QUEUE, BATCH, DELAY, TIMEOUT = 2_048, 512, 1.0, 5.0
"""Spans that wait at most (1 MB or so), spans in one request, s between two requests, and s for one with its retries;
unless OTEL_BSP_MAX_QUEUE_SIZE, _MAX_EXPORT_BATCH_SIZE, _SCHEDULE_DELAY (ms) or OTEL_EXPORTER_OTLP_TIMEOUT are set."""

LOG_INTERVAL = 60.0
"""s between two log lines about dropped spans."""

PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
KINDS = {kind.name.lower(): kind for kind in SpanKind}


class Export:
    """Makes spans and sends them. `exporter` replaces OTLP in tests."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        # At ERROR it would log the collector's address, with what is in its URL, for each lost batch.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        queue = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or QUEUE)
        batch = min(queue, int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or BATCH))
        delay = float(os.environ.get("OTEL_BSP_SCHEDULE_DELAY") or DELAY * 1000)
        self._counted = _Counted(exporter or _otlp(), queue)
        self._batches = _Batches(self._counted, queue, delay, batch)
        # The sampler is that of OTEL_TRACES_SAMPLER. At its exit a process would wait for the collector.
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(self._batches)
        self._tracer = self._provider.get_tracer(NAMESPACE, schema_url=SCHEMA)

    @property
    def dropped(self) -> int:
        return self._counted.dropped

    def flush(self) -> None:
        """Send what waits, now; waits for the collector."""
        self._batches.force_flush()

    def begin(self, name: str, attributes: Mapping[str, Value], parent: str, kind: str, root: bool) -> Span:
        """See `app.process.tracing.span`."""
        within = _within(parent)
        if not root and not trace.get_current_span(within).get_span_context().is_valid:
            return OFF
        return _Live(self._tracer.start_span(name, within, KINDS[kind], dict(attributes)))

    def record(
        self, name: str, attributes: Mapping[str, Value], begun: float, ended: float, parent: str, failure: str
    ) -> None:
        """See `app.process.tracing.record`."""
        within = _within(parent)
        if trace.get_current_span(within).get_span_context().is_valid:
            span = self._tracer.start_span(name, within, attributes=dict(attributes), start_time=_nanoseconds(begun))
            if failure:
                _fail(span, failure)
            span.end(_nanoseconds(ended))

    def traceparent(self) -> str:
        """See `app.process.tracing.traceparent`."""
        now = trace.get_current_span().get_span_context()
        if not now.is_valid:
            return ""
        return f"00-{now.trace_id:032x}-{now.span_id:016x}-{now.trace_flags:02x}"


class _Live(Span):
    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._token: Any = None

    def __enter__(self) -> Span:
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(self, *raised: object) -> None:
        context.detach(self._token)
        if raised and isinstance(raised[0], type):
            self.fail(raised[0].__qualname__)
        self.end()

    def set(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def fail(self, kind: str) -> None:
        _fail(self._span, kind)

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()


class _Counted(SpanExporter):
    """An exporter that counts the spans that wait for it, and those that were dropped: the queue does not say what it
    drops."""

    def __init__(self, exporter: SpanExporter, limit: int) -> None:
        self._exporter = exporter
        self._limit = limit
        self._lock = Lock()
        self._waiting = 0
        self._logged = float("-inf")
        self.dropped = 0

    def ended(self) -> None:
        """One more waits; in a full queue it takes the place of the oldest."""
        with self._lock:
            if self._waiting < self._limit:
                self._waiting += 1
                return
        self._lost(1)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            self._waiting = max(0, self._waiting - len(spans))
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self._lost(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def _lost(self, number: int) -> None:
        with self._lock:
            self.dropped += number
            if time.monotonic() - self._logged < LOG_INTERVAL:
                return
            self._logged = time.monotonic()
        log.warning("spans are dropped: the collector is away or too slow", extra={"dropped": self.dropped})


class _Batches(BatchSpanProcessor):
    """Sends ended spans in batches by `exporter`, which counts them."""

    def __init__(self, exporter: _Counted, queue: int, delay: float, batch: int) -> None:
        super().__init__(exporter, queue, delay, batch)
        self._counted = exporter

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._counted.ended()
        super().on_end(span)


def _otlp() -> OTLPSpanExporter:
    chosen = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}TIMEOUT") for name in ("", "TRACES_"))
    return OTLPSpanExporter(timeout=None if chosen else TIMEOUT)


def _resource() -> Resource:
    """Which process this is. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word."""
    own = {"service.namespace": NAMESPACE, "service.name": os.environ.get("PROCESS_NAME") or NAMESPACE}
    return Resource(own).merge(OTELResourceDetector().detect())


def _within(parent: str) -> context.Context | None:
    """The context of a traceparent, None for the current one; an invalid one counts as none."""
    found = PARENT.fullmatch(parent)
    if found is None:
        return None
    trace_id, span_id, flags = (int(each, 16) for each in found.groups())
    remote = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return trace.set_span_in_context(NonRecordingSpan(remote)) if remote.is_valid else None


def _fail(span: trace.Span, kind: str) -> None:
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", kind)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
