"""Schemas of the call on processes."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.schemas import time_field
from app.core.redis.processes import KINDS


class ProcessSchema(Schema):
    name = fields.String(required=True, metadata={"examples": ["web@fresh-1:4711"]})
    kind = fields.String(required=True, metadata={"enum": list(KINDS)})
    host = fields.String(required=True, allow_none=True, metadata={"description": "its machine or pod"})
    status = fields.String(required=True, metadata={"enum": ["alive", "silent"]})
    seen_at = time_field(required=True, allow_none=True)
    since = time_field(required=True, allow_none=True)
    clock_skew_seconds = fields.Float(
        required=True, allow_none=True, metadata={"description": "how far its clock is ahead of Redis'"}
    )


class ProcessesSchema(Schema):
    processes = fields.List(fields.Nested(ProcessSchema), required=True)
    timestamp = time_field(required=True)
