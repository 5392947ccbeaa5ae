"""Schemas of the events of rollbacks and forks."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from app.api.schemas import time_field, uuid_field


class RolledBackEventSchema(Schema):
    """The session was rolled back, or a rollback was called off and the files are as they were."""

    status = fields.String(required=True, validate=validate.OneOf(["done", "failed"]))
    restore_point = fields.String(
        allow_none=True, metadata={"description": "the restore point, null if an agent undid a message"}
    )
    message_id = fields.String(metadata={"description": "the message before which the state is, if it was named"})
    restored = fields.String(
        metadata={"description": "`checkpoint` if the agent undid the message, else `restore_point`"}
    )
    files_of = time_field(allow_none=True)
    saved = fields.String(
        allow_none=True, metadata={"description": "the restore point of the state before the rollback"}
    )
    fell_back = fields.Boolean(
        metadata={"description": "the restore point was broken; this is the newest whole one before it"}
    )
    prompts = fields.Integer(metadata={"description": "how many prompts were marked"})
    reason = fields.String(metadata={"description": "why it was called off"})


class ForkedFromEventSchema(Schema):
    """The session was created with the files of another one's restore point."""

    uuid = uuid_field()
    restore_point = fields.String(required=True)
    files_of = time_field(required=True, allow_none=True)
