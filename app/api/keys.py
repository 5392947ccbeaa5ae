"""The call on API keys: who has one, and what it may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from flask import current_app
from marshmallow import Schema, fields

from app.api.answers import Items, Number, Object, Text, Whole
from app.api.blueprint import Blueprint
from app.api.current import KEYRING, core
from app.api.security import check_operator
from app.core.access.keyring import ROLES, Keyring
from app.core.costs.budgets import key_budgets


def concurrency_limit(key: Mapping[str, Any]) -> int | None:
    return key["max_concurrent"] or None


class KeySchema(Schema):
    """A key, made of its fields and its budget."""

    name = Text()
    role = Text(enum=list(ROLES))
    user_prefix = Text("it acts for users whose id begins so; null for all", null=True)
    limits = Object("its own rate limits by kind of call", values=fields.String(), examples=[{"create": "1000/minute"}])
    max_concurrent = Whole("its waits, streams and calls to agents at a time", of=concurrency_limit, null=True)
    budget = Number("dollars a calendar month", null=True)


class KeysSchema(Schema):
    keys = Items(KeySchema)


blp = Blueprint("keys", __name__, description="API keys.")


@blp.route("/keys", methods=["GET"])
@blp.response(200, KeysSchema)
@blp.operation("listKeys")
def list_all() -> dict[str, Any]:
    """List the API keys by name and role, never a key or its digest. Two keys of a rotation may have the same name. For
    admin and read keys that are bound to no users."""
    check_operator()
    keyring, budgets = cast(Keyring, current_app.extensions[KEYRING]), key_budgets(core().settings.api_keys)
    found = sorted(keyring, key=lambda each: each.name)
    return {"keys": [vars(each) | {"budget": budgets.get(each.name)} for each in found]}
