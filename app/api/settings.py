"""The call on the settings that are in force."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema

from app.api.answers import Items, OfTypes, Text, Truth
from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.security import check_operator
from app.core.operations.settings_in_force import in_force

VALUE_TYPES = ("string", "integer", "number")


class SettingSchema(Schema):
    name = Text("its environment variable", examples=["WEB_WORKERS"])
    value = OfTypes(VALUE_TYPES, "what is in force; of a secret `set` or `not set`")
    unit = Text(examples=["s", "bytes", "URL"])
    default = OfTypes(VALUE_TYPES, "what holds if it is not set")
    reason = Text("what it is for, and why the default is what it is")
    changed = Truth("whether it differs from its default")
    secret = Truth()


class SettingsSchema(Schema):
    settings = Items(SettingSchema)


blp = Blueprint("settings", __name__, description="The settings that are in force.")


@blp.route("/settings", methods=["GET"])
@blp.response(200, SettingsSchema)
@blp.operation("listSettings")
def list_all() -> dict[str, Any]:
    """List all settings as this process has them, with unit, default and the reason for it. Of a secret the answer
    says only whether it is set; URLs are without user, password and the values of their query. For admin and read
    keys that are bound to no users."""
    check_operator()
    return {"settings": in_force(core().settings)}
