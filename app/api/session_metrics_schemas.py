"""Schemas of what a session uses."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.cost_schemas import TokenCountSchema
from app.api.schemas import time_field, uuid_field


class ResourcesSchema(Schema):
    cpu = fields.Float(required=True, metadata={"description": "in cores"})
    memory_bytes = fields.Integer(required=True)
    disk_bytes = fields.Integer(required=True, metadata={"description": "in use on the volume"})


class ResourceMinuteSchema(ResourcesSchema):
    at = time_field(required=True)


class PercentilesSchema(Schema):
    p50 = fields.Integer(required=True, allow_none=True)
    p95 = fields.Integer(required=True, allow_none=True)


class SessionMetricsSchema(Schema):
    uuid = uuid_field()
    now = fields.Nested(ResourcesSchema, required=True)
    hour = fields.List(
        fields.Nested(ResourceMinuteSchema),
        required=True,
        metadata={"description": "the last 60 whole minutes, oldest first; those asleep have the disk only"},
    )
    chat_ms = fields.Nested(
        PercentilesSchema,
        required=True,
        metadata={"description": "from a prompt to its answer, of the last 200 that are kept; null without any"},
    )
    tokens = fields.Nested(TokenCountSchema, required=True, metadata={"description": "of the session so far"})
    timestamp = time_field(required=True)
