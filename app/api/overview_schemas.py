"""Schemas of the call on the service over time."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from app.api.schemas import QueryInteger, Strict, time_field

MOST_HOURS = 720


class HistoryQuerySchema(Strict):
    hours = QueryInteger(
        load_default=24,
        validate=validate.Range(1, MOST_HOURS),
        metadata={"description": "how far back; up to 24 in minutes, more in hours"},
    )


def counts_field(description: str) -> fields.Dict:
    return fields.Dict(
        keys=fields.String(), values=fields.Integer(), required=True, metadata={"description": description}
    )


def ms_field(description: str) -> fields.Integer:
    text = f"{description}, by the buckets of /metrics; null without any"
    return fields.Integer(required=True, allow_none=True, metadata={"description": text})


def dollars_field(description: str) -> fields.Float:
    return fields.Float(required=True, metadata={"description": description})


class SampleSchema(Schema):
    at = time_field(required=True)
    sessions = counts_field("by status")
    wakes = fields.Integer(required=True, metadata={"description": "sessions that woke"})
    wake_p50_ms = ms_field("half of them took less")
    wake_p95_ms = ms_field("of a hundred of them 95 took less")
    creates = fields.Integer(required=True, metadata={"description": "new sessions that started"})
    create_p50_ms = ms_field("half of them took less")
    create_p95_ms = ms_field("of a hundred of them 95 took less")
    cost_dollars = dollars_field("what all sessions cost")
    saved_dollars = dollars_field("what processes that always ran would have cost besides")
    failures = counts_field("by reason: a `reason_code`, or the action that failed, as `wake_failed`")
    queues = counts_field("waiting tasks by queue")
    dead_letters = fields.Integer(required=True)


class HistorySchema(Schema):
    samples = fields.List(fields.Nested(SampleSchema), required=True)
    interval_seconds = fields.Integer(required=True, metadata={"enum": [60, 3600]})
    timestamp = time_field(required=True)
