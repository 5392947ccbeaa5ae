"""Schemas of the audit's calls."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from app.api.answers import Items, Text, Time, Whole
from app.api.request_fields import UUID_REGEX, PageQuerySchema, WholeText


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
    id = Text()
    at = Time()
    action = Text("`several` if a caller was refused many different calls within a minute", of="act.action")
    uuid = Text("the session it is about", of="act.uuid", null=True)
    user_id = Text("the session's user", of="act.user_id", null=True)
    by = Text(
        "a key's name, `oidc:{name}` for a person signed in by OpenID Connect, `session:{uuid}` for its token, "
        "`workspace:{uuid}` for its workspace's, `visitor`, `anonymous`, `system`",
        of="act.by",
    )
    role = Text(
        "the key's role; without a key `session`, `workspace`, `visitor`, `anonymous` or `system`", of="act.role"
    )
    address = Text("where the call came from", of="act.address", null=True)
    status = Whole("of the answer; null if there was none", of=lambda entry: entry.act.status or None, null=True)
    reason = Text("the error's code, or details of the call", of="act.reason", null=True)
    request_id = Text(of="act.request_id", null=True)
    count = Whole("how often, within a minute from `at` on")


class AuditSchema(Schema):
    entries = Items(AuditEntrySchema)
    next_cursor = Text("null at the end; pages before may have few entries, or none", null=True)
