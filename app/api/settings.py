"""The call on the settings that are in force."""

from __future__ import annotations

from typing import Any

from flask import Response
from marshmallow import Schema, fields

from app.api.blueprint import Blueprint
from app.api.current import core, reply
from app.api.security import check_operator
from app.core.operations.settings_in_force import in_force


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


blp = Blueprint("settings", __name__, description="The settings that are in force.")


@blp.route("/settings", methods=["GET"])
@blp.response(200, SettingsSchema)
@blp.operation("listSettings")
def list_all() -> Response:
    """List all settings as this process has them, with unit, default and the reason for it. Of a secret the answer
    says only whether it is set; URLs are without user, password and the values of their query. For admin and read
    keys that are bound to no users."""
    check_operator()
    return reply({"settings": [vars(each) for each in in_force(core().settings)]})
