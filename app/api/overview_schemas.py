"""Schemas of the call on the service over time."""

from __future__ import annotations

from collections.abc import Iterable

from marshmallow import Schema, fields, validate

from app.api.answers import Items, Number, Object, Of, Time, Whole
from app.api.request_fields import QueryInteger, Strict
from app.core.operations.overview import quantile
from app.core.redis.task_queue import QUEUES
from app.core.sessions.model import Status
from app.core.sessions.samples import Counts

MOST_HOURS = 720


class HistoryQuerySchema(Strict):
    hours = QueryInteger(
        load_default=24,
        validate=validate.Range(1, MOST_HOURS),
        metadata={"description": "how far back; up to 24 in minutes, more in hours"},
    )


def all_of(names: Iterable[str], counts: Counts) -> dict[str, int]:
    """The counts of all these names; a sample leaves zeros out."""
    return {str(name): counts.get(name, 0) for name in names}


def counts_field(description: str, of: Of = None) -> Object:
    return Object(description, of=of, values=fields.Integer())


def ms_field(description: str, of: Of) -> Whole:
    return Whole(f"{description}, by the buckets of /metrics; null without any", of=of, null=True)


class SampleSchema(Schema):
    at = Time()
    sessions = counts_field("by status", lambda sample: all_of(Status, sample.sessions))
    wakes = Whole("sessions that woke", of=lambda sample: sum(sample.wakes))
    wake_p50_ms = ms_field("half of them took less", lambda sample: quantile(sample.wakes, 0.5))
    wake_p95_ms = ms_field("of a hundred of them 95 took less", lambda sample: quantile(sample.wakes, 0.95))
    creates = Whole("new sessions that started", of=lambda sample: sum(sample.creates))
    create_p50_ms = ms_field("half of them took less", lambda sample: quantile(sample.creates, 0.5))
    create_p95_ms = ms_field("of a hundred of them 95 took less", lambda sample: quantile(sample.creates, 0.95))
    cost_dollars = Number("what all sessions cost", of=lambda sample: round(sample.cost, 6))
    saved_dollars = Number(
        "what processes that always ran would have cost besides", of=lambda sample: round(sample.saved, 6)
    )
    failures = counts_field("by reason: a `reason_code`, or the action that failed, as `wake_failed`")
    queues = counts_field("waiting tasks by queue", lambda sample: all_of(QUEUES, sample.queues))
    dead_letters = Whole()


class HistorySchema(Schema):
    samples = Items(SampleSchema)
    interval_seconds = Whole(enum=[60, 3600])
    timestamp = Time()
