"""The metrics of HTTP requests, the same for web, forward auth and the gateway."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""s: from a cheap read to the longest wait that a caller may ask for."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Callers may invent others; these are counted as `other`."""

NO_ENDPOINT = "none"


class HttpMetrics:
    """The requests that a process answered. `process` is web, forward-auth or gateway."""

    def __init__(self, process: str, registry: CollectorRegistry) -> None:
        self._process = process
        self._requests = Counter(
            "http_requests",
            "HTTP requests answered",
            ["process", "endpoint", "method", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "http_request_seconds",
            "From an HTTP request's head to its answer's; streams are left out",
            ["process", "endpoint", "method"],
            buckets=BUCKETS,
            registry=registry,
        )
        # `labels` checks and joins texts under a lock, which costs more than to count.
        self._counters: dict[tuple[str | None, str, int], Counter] = {}
        self._histograms: dict[tuple[str | None, str], Histogram] = {}

    def answered(self, endpoint: str | None, method: str, status: int, seconds: float | None) -> None:
        """Count a request to an endpoint of Flask (None: no such path). `seconds` is None for a stream."""
        method = method if method in METHODS else "other"
        counter = self._counters.get((endpoint, method, status))
        if counter is None:
            counter = self._requests.labels(self._process, endpoint or NO_ENDPOINT, method, str(status))
            self._counters[endpoint, method, status] = counter
        counter.inc()
        if seconds is None:
            return
        histogram = self._histograms.get((endpoint, method))
        if histogram is None:
            histogram = self._seconds.labels(self._process, endpoint or NO_ENDPOINT, method)
            self._histograms[endpoint, method] = histogram
        histogram.observe(seconds)
