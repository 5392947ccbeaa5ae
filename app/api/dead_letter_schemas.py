"""Schemas of the calls on dead letters."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.api.schemas import status_field, time_field, uuid_field
from app.core.redis.dead_letters import LETTER_ID_PATTERN

ID_REGEX = f"^{LETTER_ID_PATTERN.pattern}$"


class DeadLetterSchema(Schema):
    id = fields.String(required=True, metadata={"pattern": ID_REGEX})
    at = time_field(required=True, allow_none=True)
    task = fields.String(required=True, metadata={"examples": ["sessions.wake"]})
    queue = fields.String(required=True, allow_none=True, metadata={"description": "of the task"})
    uuid = fields.String(required=True, allow_none=True, metadata={"description": "the session it is about"})
    generation = fields.Integer(
        required=True, allow_none=True, metadata={"description": "of the session's intent; null for a backup"}
    )
    tries = fields.Integer(required=True, allow_none=True, metadata={"description": "attempts that were made"})
    error = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "the kind of the last error; null if its workers died", "examples": ["ArchiveError"]},
    )
    reason = fields.String(required=True, allow_none=True, metadata={"description": "why it was given up"})
    request_id = fields.String(required=True, allow_none=True, metadata={"description": "of the request behind it"})


class DeadLetterListSchema(Schema):
    total = fields.Integer(required=True)
    dead_letters = fields.List(fields.Nested(DeadLetterSchema), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class RetriedSchema(Schema):
    id = fields.String(required=True, metadata={"description": "the dead letter's, which is dropped"})
    uuid = uuid_field()
    task = fields.String(required=True)
    status = status_field()
