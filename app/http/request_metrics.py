"""The metrics of HTTP requests, the same for web, forward auth and the gateway.

A request is only noted when it is answered, and counted soon after, with others: beside the work of a request the code
and the files that count are cold, and to count one took 2.5 % of its processor time. So a process that is killed loses
the counts of its last moment.
"""

from __future__ import annotations

from collections import deque
from threading import Timer

from prometheus_client import CollectorRegistry, Counter, Histogram

BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""s: from a cheap read to the longest wait that a caller may ask for."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Callers may invent others; these are counted as `other`."""

NO_ENDPOINT = "none"

PAUSE = 0.5
"""s after which an answered request is counted, at the latest."""

AT_ONCE = 100
"""Noted requests that are counted without waiting: 0.3 ms, for which the process answers nobody."""


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
        self._noted: deque[tuple[str | None, str, int, float | None]] = deque()
        self._due = False

    def answered(self, endpoint: str | None, method: str, status: int, seconds: float | None) -> None:
        """Note a request to an endpoint of Flask (None: no such path). `seconds` is None for a stream."""
        self._noted.append((endpoint, method, status, seconds))
        if not self._due:
            self._due = True
            timer = Timer(PAUSE, self.count)
            timer.daemon = True
            timer.start()
        elif len(self._noted) >= AT_ONCE:
            self._count_noted()

    def count(self) -> None:
        """Count all that was noted; also called before the metrics of this process are shown."""
        # First: what is noted from now on has a timer of its own.
        self._due = False
        self._count_noted()

    def _count_noted(self) -> None:
        while self._noted:
            try:
                noted = self._noted.popleft()
            except IndexError:
                # Another thread counts too.
                return
            self._count_one(*noted)

    def _count_one(self, endpoint: str | None, method: str, status: int, seconds: float | None) -> None:
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
