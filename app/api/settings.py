"""The call on the settings that are in force."""

from __future__ import annotations

from flask import Response

from app.api.blueprint import Blueprint
from app.api.current import core, reply
from app.api.operators import check_operator
from app.api.settings_schemas import SettingsSchema
from app.core.operations.settings_in_force import in_force

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
