"""Schemas of the call on API keys."""

from __future__ import annotations

from marshmallow import Schema, fields

from app.core.access.keyring import ROLES


class KeySchema(Schema):
    name = fields.String(required=True)
    role = fields.String(required=True, metadata={"enum": list(ROLES)})
    user_prefix = fields.String(
        required=True, allow_none=True, metadata={"description": "it acts for users whose id begins so; null for all"}
    )
    limits = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={"description": "its own rate limits by kind of call", "examples": [{"create": "1000/minute"}]},
    )
    held_at_once = fields.Integer(
        required=True, allow_none=True, metadata={"description": "its waits, streams and calls to agents at a time"}
    )
    budget = fields.Float(required=True, allow_none=True, metadata={"description": "dollars a calendar month"})


class KeysSchema(Schema):
    keys = fields.List(fields.Nested(KeySchema), required=True)
