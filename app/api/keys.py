"""The call on API keys: who has one, and what it may do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, cast

from flask import Response, current_app
from marshmallow import Schema, fields

from app.api.blueprint import Blueprint
from app.api.current import KEYRING, core, reply
from app.api.security import check_operator
from app.core.access.keyring import ROLES, Keyring, Principal
from app.core.costs.budgets import key_budgets


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


blp = Blueprint("keys", __name__, description="API keys.")


@blp.route("/keys", methods=["GET"])
@blp.response(200, KeysSchema)
@blp.operation("listKeys")
def list_all() -> Response:
    """List the API keys by name and role, never a key or its digest. Two keys of a rotation may have the same name. For
    admin and read keys that are bound to no users."""
    check_operator()
    keyring, budgets = cast(Keyring, current_app.extensions[KEYRING]), key_budgets(core().settings.api_keys)
    found = sorted(keyring, key=lambda each: each.name)
    return reply({"keys": [shown(each, budgets.get(each.name)) for each in found]})


def shown(key: Principal, budget: Decimal | None) -> dict[str, Any]:
    """A key in an answer; null for no limit."""
    return {
        "name": key.name,
        "role": key.role,
        "user_prefix": key.user_prefix or None,
        "limits": dict(key.limits),
        "held_at_once": key.held_at_once or None,
        "budget": None if budget is None else float(budget),
    }
