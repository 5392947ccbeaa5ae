"""Schemas of restore points."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.schemas import POINT_REGEX, time_field
from app.core.restore_points.names import ID_PATTERN

ID_REGEX = f"^{ID_PATTERN.pattern}$"
TRIGGERS = ("sleep", "interval", "archive", "rollback", "api")


class RestorePointSchema(Schema):
    id = fields.String(required=True, metadata={"pattern": ID_REGEX})
    created_at = time_field(required=True)
    trigger = fields.String(required=True, metadata={"enum": list(TRIGGERS)})
    files = fields.Integer(required=True)
    size = fields.Integer(required=True, metadata={"description": "bytes of its files"})
    stored = fields.Integer(required=True, metadata={"description": "bytes that it added to the store"})
    unreadable = fields.Integer(
        required=True, metadata={"description": "how many files it lacks, which could not be read when it was made"}
    )
    message_id = fields.String(
        required=True, allow_none=True, metadata={"description": "the last message that had ended when it was made"}
    )
    verified_at = time_field(required=True, allow_none=True)
    proven_at = time_field(required=True, allow_none=True)
    broken = fields.Boolean(
        required=True, metadata={"description": "a check or a drill found some of its data missing"}
    )
    restore_from = fields.String(
        required=True,
        metadata={"pattern": POINT_REGEX, "description": "`restore_from` of a new session with its files"},
    )


class RestorePointListSchema(Schema):
    total = fields.Integer(required=True)
    restore_points = fields.List(fields.Nested(RestorePointSchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True)
