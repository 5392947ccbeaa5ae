"""Traces: nothing at all while they are off, and what becomes of spans while they are on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from flask import Flask, request
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.http.traced_requests import trace_requests
from app.main import create_app
from app.process import tracing
from app.process.settings import Settings
from app.process.spans import OFF
from app.process.tracing_export import Export
from tests.conftest import ROOT
from tests.ports import free_port
from tests.waiting import wait_for

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

EVERY_PROCESS = """
import sys
import redis  # redis-py imports the SDK's metrics wherever the SDK is installed
before = set(sys.modules)
from app.process import tracing
from app.process.spans import OFF
import app.main, app.gateway.main, workers.tasks, workers.observer
from app.process.settings import Settings
settings = Settings(api_key="0123456789abcdef", secret_key="0123456789abcdef0123456789abcdef")
app.main.create_app(settings)
app.main.create_forward_auth(settings)
app.gateway.main.create_app(settings)
with tracing.span("x", root=True) as span:
    assert span is OFF
    assert tracing.traceparent() == ""
assert not tracing.enabled()
found = [name for name in set(sys.modules) - before if name.split(".")[0] == "opentelemetry"]
assert found == [], found
"""


def run(program: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")}
    environ = clean | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        [sys.executable, "-c", program], env=environ, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}]
)
def test_while_traces_are_off_no_process_imports_opentelemetry(environment: dict[str, str], tmp_path: Path) -> None:
    done = run(EVERY_PROCESS, tmp_path, **environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_without_the_extra_an_endpoint_is_an_error_in_the_log_and_no_more(tmp_path: Path) -> None:
    missing = "import sys; sys.modules['opentelemetry'] = None\n"
    done = run(missing + EVERY_PROCESS, tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "install the extra `tracing`" in done.stderr


class Spans:
    """The spans of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, exporter: SpanExporter | None = None) -> None:
        self._kept = InMemorySpanExporter()
        self.export = Export(exporter or self._kept)
        monkeypatch.setattr(tracing, "_export", self.export)
        monkeypatch.setattr(tracing, "_ready", True)

    def each(self) -> Sequence[ReadableSpan]:
        self.export.flush()
        return self._kept.get_finished_spans()

    def all(self) -> dict[str, ReadableSpan]:
        return {each.name: each for each in self.each()}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    return Spans(monkeypatch)


def test_a_span_is_within_the_current_one_and_its_header_names_it(spans: Spans) -> None:
    with tracing.span("outer", root=True), tracing.span("inner", {"n": 1}, kind="client"):
        header = tracing.traceparent()
    found = spans.all()
    outer, inner = found["outer"].context, found["inner"].context
    assert outer is not None and inner is not None
    assert found["inner"].parent == outer and found["outer"].parent is None
    assert header == f"00-{inner.trace_id:032x}-{inner.span_id:016x}-{inner.trace_flags:02x}"
    assert dict(found["inner"].attributes or {}) == {"n": 1}
    assert tracing.traceparent() == ""


def test_a_header_continues_its_trace_and_an_invalid_one_begins_none(spans: Spans) -> None:
    with tracing.span("continued", parent=PARENT):
        pass
    for wrong in ("", "canary", PARENT.replace("0af", "0AF"), "00-" + "0" * 32 + "-b7ad6b7169203331-01", PARENT + "\n"):
        with tracing.span("nothing", parent=wrong) as span:
            assert span is OFF
    tracing.record("nothing", {}, 1.0, 2.0, "", "")
    found = spans.all()
    assert set(found) == {"continued"}
    assert found["continued"].parent is not None and f"{found['continued'].parent.span_id:016x}" == PARENT[36:52]


def test_a_trace_that_its_caller_does_not_sample_is_not_sent_but_passed_on(spans: Spans) -> None:
    with tracing.span("unsampled", parent=PARENT[:-2] + "00"):
        assert tracing.traceparent().endswith("-00")
    assert spans.all() == {}


def test_an_error_is_its_type_without_its_text(spans: Spans) -> None:
    with suppress(ValueError), tracing.span("failed", root=True):
        raise ValueError("canary")
    failed = spans.all()["failed"]
    assert dict(failed.attributes or {}) == {"error.type": "ValueError"} and not failed.status.is_ok
    assert "canary" not in failed.to_json()


def test_what_is_over_is_added_with_its_times(spans: Spans) -> None:
    tracing.record("session wake", {"phase.ready": 900}, 100.0, 101.5, PARENT, "")
    added = spans.all()["session wake"]
    assert (added.start_time, added.end_time) == (100_000_000_000, 101_500_000_000)


def test_a_request_is_named_by_its_route_and_never_by_its_path(spans: Spans) -> None:
    app = Flask("test")
    trace_requests(app, lambda: True)

    @app.get("/things/<name>")
    def thing(name: str) -> tuple[str, int]:
        return tracing.traceparent(), 500 if name == "canary-bad" else 200

    client = app.test_client()
    header = client.get("/things/canary?canary=1", headers={"traceparent": PARENT}).text
    assert header[3:35] == PARENT[3:35]
    client.get("/canary")
    client.get("/things/canary-bad")
    client.get("/livez")
    names = [each.name for each in spans.all().values()]
    assert sorted(names) == ["GET", "GET /things/<name>"]
    assert not any("canary" in each.to_json() for each in spans.all().values())
    assert tracing.traceparent() == ""


def test_a_process_that_only_continues_traces_begins_none(spans: Spans) -> None:
    app = Flask("test")
    trace_requests(app, lambda: "known" in request.args, continued_only=True)
    app.add_url_rule("/", view_func=lambda: "")
    app.test_client().get("/")
    app.test_client().get("/", headers={"traceparent": PARENT})
    assert spans.all() == {}
    app.test_client().get("/?known", headers={"traceparent": PARENT})
    assert set(spans.all()) == {"GET /"}


def test_only_a_caller_with_a_key_has_its_trace_continued(spans: Spans, tmp_path: Path) -> None:
    """Or a stranger could have all of its calls recorded, whatever share the service samples."""
    key = "0123456789abcdef"
    away = f"redis://127.0.0.1:{free_port()}/0"
    app = create_app(Settings(data_dir=tmp_path, api_key=key, redis_url=away, dashboard_url="off"))
    for given in ({}, {"X-API-Key": "another-key-of-16"}, {"X-API-Key": key}):
        app.test_client().get("/sessions", headers={"traceparent": PARENT, **given})
    traces = [f"{each.context.trace_id:032x}" for each in spans.each() if each.context]
    assert [each == PARENT[3:35] for each in traces] == [False, False, True]


class Stuck(SpanExporter):
    """A collector that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.go.wait(30)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """It has nothing to close."""


def many(number: int) -> None:
    for _ in range(number):
        with tracing.span("x", root=True):
            pass


def test_spans_beyond_the_queue_and_those_not_taken_are_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No caller waits, however long the collector takes; one line says so."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    stuck = Stuck()
    Spans(monkeypatch, stuck)
    many(1)
    assert stuck.asked.wait(30)
    assert tracing.dropped() == 0
    many(15)
    assert tracing.dropped() == 5
    stuck.go.set()
    wait_for(lambda: tracing.dropped() == 16, "those that failed to be counted", lambda: str(tracing.dropped()))
    assert [each.message for each in caplog.records if "spans are dropped" in each.message] == [
        "spans are dropped: the collector is away or too slow"
    ]


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"PROCESS_NAME": "web"}, "web"),
        ({"PROCESS_NAME": "web", "OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"PROCESS_NAME": "web", "OTEL_RESOURCE_ATTRIBUTES": "service.name=theirs"}, "theirs"),
        ({}, "workspace-session-manager"),
    ],
)
def test_a_span_says_which_process_it_is_from(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], name: str
) -> None:
    monkeypatch.delenv("PROCESS_NAME", raising=False)
    for variable, text in environment.items():
        monkeypatch.setenv(variable, text)
    spans = Spans(monkeypatch)
    many(1)
    resource = spans.all()["x"].resource.attributes
    assert (resource["service.namespace"], resource["service.name"]) == ("workspace-session-manager", name)
