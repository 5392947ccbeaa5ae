"""What the processes of web and forward auth count by themselves; app/api/metrics.py shows what all count in Redis."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge

from app.http.request_metrics import HttpMetrics
from app.process.shared_metrics import SUM_OF_LIVING

INSTRUMENTS = "instruments"
"""The name of the app's extension."""


class WebInstruments:
    """Of a process of web. `streams` and `waits` are the open ones."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.http = HttpMetrics("web", self.registry)
        self.streams = self._gauge("http_streams_open", "Event streams in progress")
        self.waits = self._gauge("http_waits_open", "Calls that wait for a session's state or a prompt's answer")

    def _gauge(self, name: str, text: str) -> Gauge:
        gauge = Gauge(name, text, ["process"], registry=self.registry, multiprocess_mode=SUM_OF_LIVING)
        return gauge.labels("web")


class Decided(StrEnum):
    """How a request of the ingress ended: the visitor may see the workspace (up or not yet); is on the way in, by a
    link or the product's sign-in; may not; or the decision failed."""

    LET_IN = "let_in"
    LOGIN = "login"
    REFUSED = "refused"
    ERROR = "error"


class ForwardAuthInstruments:
    """Of a process of forward auth."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.http = HttpMetrics("forward-auth", self.registry)
        decisions = Counter("forward_auth_decisions", "Decisions on visitors", ["decision"], registry=self.registry)
        self._decisions = {each: decisions.labels(each.value) for each in Decided}

    def decided(self, decided: Decided) -> None:
        """Count a decision."""
        self._decisions[decided].inc()
