"""The metrics of requests."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from app.http.request_metrics import AT_ONCE, HttpMetrics
from tests.waiting import wait_for


def counted(*requests: tuple[str | None, str, int, float | None]) -> CollectorRegistry:
    registry = CollectorRegistry()
    metrics = HttpMetrics("web", registry)
    for each in requests:
        metrics.answered(*each)
    metrics.count()
    return registry


def total(registry: CollectorRegistry) -> float | None:
    labels = {"process": "web", "endpoint": "x", "method": "GET", "status": "200"}
    return registry.get_sample_value("http_requests_total", labels)


def test_requests_are_counted_by_endpoint_method_and_status() -> None:
    registry = counted(("sessions.get", "GET", 200, 0.003), ("sessions.get", "GET", 200, 0.03), ("x", "PUT", 500, 1.0))
    labels = {"process": "web", "endpoint": "sessions.get", "method": "GET"}
    assert registry.get_sample_value("http_requests_total", {**labels, "status": "200"}) == 2
    assert registry.get_sample_value("http_request_seconds_count", labels) == 2
    assert registry.get_sample_value("http_request_seconds_bucket", {**labels, "le": "0.005"}) == 1


def test_a_stream_has_no_duration() -> None:
    registry = counted(("sessions.events", "GET", 200, None))
    labels = {"process": "web", "endpoint": "sessions.events", "method": "GET"}
    assert registry.get_sample_value("http_requests_total", {**labels, "status": "200"}) == 1
    assert registry.get_sample_value("http_request_seconds_count", labels) is None


def test_callers_cannot_make_labels() -> None:
    registry = counted((None, "HACK", 404, 0.1), (None, "HACK2", 404, 0.1))
    labels = {"process": "web", "endpoint": "none", "method": "other", "status": "404"}
    assert registry.get_sample_value("http_requests_total", labels) == 2


@pytest.mark.slow
def test_a_request_is_counted_soon_by_itself() -> None:
    """And the next one after that too: each has a timer, or the timer of one before it."""
    registry = CollectorRegistry()
    metrics = HttpMetrics("web", registry)
    metrics.answered("x", "GET", 200, 0.1)
    wait_for(lambda: total(registry) == 1, "the request to be counted")
    metrics.answered("x", "GET", 200, 0.1)
    wait_for(lambda: total(registry) == 2, "the next one to be counted")


def test_many_requests_are_counted_at_once() -> None:
    """So that few wait in memory, and none is counted twice."""
    registry = CollectorRegistry()
    metrics = HttpMetrics("web", registry)
    for _ in range(AT_ONCE):
        metrics.answered("x", "GET", 200, 0.1)
    assert total(registry) == AT_ONCE
    metrics.count()
    assert total(registry) == AT_ONCE
