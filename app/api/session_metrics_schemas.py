"""Schemas of what a session uses."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from marshmallow import Schema

from app.api.answers import Items, Number, Part, Time, Whole, uuid_field
from app.api.cost_schemas import TokenCountSchema


def median_ms(seconds: Sequence[float]) -> int | None:
    return round(statistics.median(1000 * each for each in seconds)) if seconds else None


def p95_ms(seconds: Sequence[float]) -> int | None:
    return round(1000 * sorted(seconds)[-(-95 * len(seconds) // 100) - 1]) if seconds else None


class ResourcesSchema(Schema):
    cpu = Number("in cores")
    memory_bytes = Whole()
    disk_bytes = Whole("in use on the volume")


class ResourceMinuteSchema(ResourcesSchema):
    at = Time()


class PercentilesSchema(Schema):
    """Of durations in seconds."""

    p50 = Whole(of=median_ms, null=True)
    p95 = Whole(of=p95_ms, null=True)


class SessionMetricsSchema(Schema):
    uuid = uuid_field()
    now = Part(ResourcesSchema)
    hour = Items(ResourceMinuteSchema, "the last 60 whole minutes, oldest first; those asleep have the disk only")
    chat_ms = Part(PercentilesSchema, "from a prompt to its answer, of the last 200 that are kept; null without any")
    tokens = Part(TokenCountSchema, "of the session so far")
    timestamp = Time()
