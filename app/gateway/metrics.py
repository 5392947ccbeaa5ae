"""The gateway's metrics for Prometheus. No label names a session or user: scrapers learn sums only."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from app.core.prompts.token_usage import Tokens

FIRST_BYTE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""s: from the gateway's own time to the slowest answer allowed."""


class Figures:
    """The metrics of one process, with a registry of their own."""

    def __init__(self) -> None:
        registry = CollectorRegistry(auto_describe=False)
        self._registry = registry
        self.requests = Counter("gateway_requests", "Requests answered", ["endpoint", "status"], registry=registry)
        self.retries = Counter(
            "gateway_llm_retries", "Requests sent to the provider again", ["reason"], registry=registry
        )
        self.cut = Counter("gateway_llm_streams_cut", "Streams that the provider cut off", registry=registry)
        self.open = Gauge("gateway_llm_streams_open", "Requests to the model in progress", registry=registry)
        self.first_byte = Histogram(
            "gateway_llm_first_byte_seconds",
            "From a request's arrival to the first byte of its answer, retries included",
            buckets=FIRST_BYTE_BUCKETS,
            registry=registry,
        )
        self._counted = Counter("gateway_llm_tokens", "Tokens the provider counted", ["kind"], registry=registry)
        self._estimated = Counter(
            "gateway_llm_tokens_estimated",
            "Tokens estimated by length, without a count",
            ["kind"],
            registry=registry,
        )
        self.unrecorded = Counter(
            "gateway_llm_tokens_unrecorded", "Tokens missing in the budgets because Redis was down", registry=registry
        )

    def count_tokens(self, tokens: Tokens) -> None:
        """Add the tokens of one request."""
        counter = self._estimated if tokens.estimated else self._counted
        counter.labels("prompt").inc(tokens.prompt)
        counter.labels("completion").inc(tokens.completion)

    def text(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format `accept` prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
