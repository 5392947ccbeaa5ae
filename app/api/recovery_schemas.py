"""Schemas of the calls on the recovery of sessions from the store."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.schemas import time_field


class RecoveryRequestSchema(Schema):
    dry_run = fields.Boolean(
        load_default=False, metadata={"description": "only count the sessions that would come back"}
    )


class RecoverySchema(Schema):
    status = fields.String(required=True, metadata={"enum": ["none", "running", "done"]})
    dry_run = fields.Boolean(required=True, allow_none=True)
    requested_at = time_field(required=True, allow_none=True)
    ended_at = time_field(required=True, allow_none=True)
    found = fields.Integer(
        required=True,
        allow_none=True,
        metadata={
            "description": "sessions that had restore points and neither record nor workspace; null until the end"
        },
    )
    recovered = fields.Integer(required=True, metadata={"description": "those that exist again, so far"})
    damaged = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "those of whose restore points none can be read; null until the end"},
    )
    error = fields.String(
        required=True, allow_none=True, metadata={"description": "of the last attempt, which is repeated"}
    )
