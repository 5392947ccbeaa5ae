"""The gateway's metrics for Prometheus, of all its processes. No label names a session or user: scrapers learn sums
only."""

from __future__ import annotations

import re
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.core.prompts.token_usage import Tokens
from app.http.request_metrics import HttpMetrics
from app.process.shared_metrics import SUM_OF_LIVING, exposition, shown

FIRST_BYTE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""s: from the gateway's own time to the slowest answer allowed."""


MODELS = 16
"""Names of models that a process shows; each is a label, and workspaces may choose the names."""

MODEL_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}", re.ASCII)

OTHER = "other"


class Models:
    """The names of models as labels: the first `most` that are used, all others as `other`."""

    def __init__(self, most: int = MODELS) -> None:
        self._most = most
        self._known: set[str] = set()
        self._lock = Lock()

    def label(self, name: str) -> str:
        """The label of a model."""
        with self._lock:
            if name not in self._known and len(self._known) < self._most and MODEL_PATTERN.fullmatch(name):
                self._known.add(name)
            return name if name in self._known else OTHER


class Metrics:
    """What a process counts, with a registry of its own."""

    def __init__(self) -> None:
        registry = CollectorRegistry(auto_describe=False)
        self._registry = registry
        self._models = Models()
        self.http = HttpMetrics("gateway", registry)
        self.requests = Counter("gateway_requests", "Requests answered", ["endpoint", "status"], registry=registry)
        self.retries = Counter(
            "gateway_llm_retries", "Requests sent to the provider again", ["reason"], registry=registry
        )
        self.cut = Counter("gateway_llm_streams_cut", "Streams that the provider cut off", registry=registry)
        self.open = Gauge(
            "gateway_llm_streams_open",
            "Requests to the model in progress",
            registry=registry,
            multiprocess_mode=SUM_OF_LIVING,
        )
        self.first_byte = Histogram(
            "gateway_llm_first_byte_seconds",
            "From a request's arrival to the first byte of its answer, retries included",
            buckets=FIRST_BYTE_BUCKETS,
            registry=registry,
        )
        self._counted = Counter(
            "gateway_llm_tokens", "Tokens the provider counted", ["kind", "model"], registry=registry
        )
        self._estimated = Counter(
            "gateway_llm_tokens_estimated",
            "Tokens estimated by length, without a count",
            ["kind"],
            registry=registry,
        )
        self.unrecorded = Counter(
            "gateway_llm_tokens_unrecorded", "Tokens missing in the budgets because Redis was down", registry=registry
        )

    def count_tokens(self, tokens: Tokens, model: str) -> None:
        """Add the tokens of one request to a model."""
        for kind, count in (("prompt", tokens.prompt), ("completion", tokens.completion)):
            if tokens.estimated:
                self._estimated.labels(kind).inc(count)
            else:
                self._counted.labels(kind, self._models.label(model)).inc(count)

    def text(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format `accept` prefers."""
        self.http.count()
        return exposition(shown(self._registry), accept)
