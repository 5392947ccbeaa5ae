"""The shapes of the audit's calls."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from app.api.schemas import UUID_REGEX, PageQuerySchema, WholeText, time_field


class AuditQuerySchema(PageQuerySchema):
    uuid = fields.String(
        validate=WholeText(UUID_REGEX, "8 of 0-9 a-z"), metadata={"description": "what was done to this session"}
    )
    key = fields.String(
        validate=validate.Length(1, 128),
        metadata={
            "description": "what this caller did: a key's name, `session:{uuid}`, `visitor`, `anonymous`, `system`"
        },
    )


class AuditEntrySchema(Schema):
    id = fields.String(required=True)
    at = time_field(required=True)
    action = fields.String(
        required=True,
        metadata={"description": "`several` where a caller was refused more different things in a minute"},
    )
    uuid = fields.String(required=True, allow_none=True, metadata={"description": "the session it is about"})
    user_id = fields.String(required=True, allow_none=True, metadata={"description": "whose session that is"})
    by = fields.String(
        required=True,
        metadata={"description": "a key's name, `session:{uuid}` for its token, `visitor`, `anonymous`, `system`"},
    )
    role = fields.String(
        required=True,
        metadata={"description": "that of the key; `session`, `visitor`, `anonymous` or `system` where there is none"},
    )
    address = fields.String(required=True, allow_none=True, metadata={"description": "where the call came from"})
    status = fields.Integer(
        required=True, allow_none=True, metadata={"description": "of the answer; null where there was none"}
    )
    reason = fields.String(
        required=True, allow_none=True, metadata={"description": "the error's code, or why or how it was done"}
    )
    request_id = fields.String(required=True, allow_none=True)
    count = fields.Integer(required=True, metadata={"description": "how often, within the minute from `at`"})


class AuditSchema(Schema):
    entries = fields.List(fields.Nested(AuditEntrySchema), required=True)
    next_cursor = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "null at the end; until then a page may have few entries, or none"},
    )
