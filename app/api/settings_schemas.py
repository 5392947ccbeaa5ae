"""Schemas of the call on settings."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields


def value_field(description: str) -> fields.Raw:
    metadata: dict[str, Any] = {"description": description, "type": ["string", "integer", "number"]}
    return fields.Raw(required=True, metadata=metadata)


class SettingSchema(Schema):
    name = fields.String(
        required=True, metadata={"description": "its environment variable", "examples": ["WEB_WORKERS"]}
    )
    value = value_field("what is in force; of a secret `set` or `not set`")
    unit = fields.String(required=True, metadata={"examples": ["s", "bytes", "URL"]})
    default = value_field("what holds if it is not set")
    reason = fields.String(required=True, metadata={"description": "what it is for, and why the default is what it is"})
    changed = fields.Boolean(required=True, metadata={"description": "whether it differs from its default"})
    secret = fields.Boolean(required=True)


class SettingsSchema(Schema):
    settings = fields.List(fields.Nested(SettingSchema), required=True)
