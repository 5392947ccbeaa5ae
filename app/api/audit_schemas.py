"""Schemas of the audit's calls."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from app.api.schemas import UUID_REGEX, PageQuerySchema, WholeText, time_field


class AuditQuerySchema(PageQuerySchema):
    uuid = fields.String(
        validate=WholeText(UUID_REGEX, "8 of 0-9 a-z"), metadata={"description": "only calls about this session"}
    )
    key = fields.String(
        validate=validate.Length(1, 128),
        metadata={
            "description": "only calls of this caller: a key's name, `oidc:{name}`, `session:{uuid}`, "
            "`workspace:{uuid}`, `visitor`, `anonymous`, `system`"
        },
    )


class AuditEntrySchema(Schema):
    id = fields.String(required=True)
    at = time_field(required=True)
    action = fields.String(
        required=True,
        metadata={"description": "`several` if a caller was refused many different calls within a minute"},
    )
    uuid = fields.String(required=True, allow_none=True, metadata={"description": "the session it is about"})
    user_id = fields.String(required=True, allow_none=True, metadata={"description": "the session's user"})
    by = fields.String(
        required=True,
        metadata={
            "description": "a key's name, `oidc:{name}` for a person signed in by OpenID Connect, `session:{uuid}` for "
            "its token, `workspace:{uuid}` for its workspace's, `visitor`, `anonymous`, `system`"
        },
    )
    role = fields.String(
        required=True,
        metadata={
            "description": "the key's role; without a key `session`, `workspace`, `visitor`, `anonymous` or `system`"
        },
    )
    address = fields.String(required=True, allow_none=True, metadata={"description": "where the call came from"})
    status = fields.Integer(
        required=True, allow_none=True, metadata={"description": "of the answer; null if there was none"}
    )
    reason = fields.String(
        required=True, allow_none=True, metadata={"description": "the error's code, or details of the call"}
    )
    request_id = fields.String(required=True, allow_none=True)
    count = fields.Integer(required=True, metadata={"description": "how often, within a minute from `at` on"})


class AuditSchema(Schema):
    entries = fields.List(fields.Nested(AuditEntrySchema), required=True)
    next_cursor = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "null at the end; pages before may have few entries, or none"},
    )
