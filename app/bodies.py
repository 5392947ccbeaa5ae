"""What a request brings: read up to a size of its own, and out of what the process may hold of all requests."""

from __future__ import annotations

import io
from typing import Any, cast

from flask import Flask, current_app, g, request

from app.problems import Problem
from app.sessions.byte_budget import Account, ByteBudget
from app.sessions.foreign_json import VALUE_BYTES, TooManyValues, count_values, parse

EXTENSION = "workspace_bodies"

PIECE = 65_536
"""Bytes read at a time: who sends slowly takes no more than what has come."""


def register_bodies(app: Flask, budget: ByteBudget) -> None:
    """Have every request of the app draw on the budget until its view has returned; a stream it answers with is none
    of it."""
    app.extensions[EXTENSION] = budget
    app.teardown_request(lambda _: forget_body())


def forget_body() -> None:
    """Give back what the request has of the budget; for one that is answered, and stays for a while."""
    g.pop("body", None)
    account: Account | None = g.pop("bodies", None)
    if account is not None:
        account.close()


def read_body(most: int) -> bytes:
    """The body, of so many bytes at most; 413 by Flask's exception where it has more. Raises `NoRoom`."""
    request.max_content_length = most
    account, body = _account(), io.BytesIO()
    while piece := request.stream.read(PIECE):
        account.take(len(piece))
        body.write(piece)
    return body.getvalue()


def body_of_request() -> bytes:
    """The body, of as many bytes as the edge lets this endpoint have; read once, however often it is asked for."""
    if "body" not in g:
        g.body = read_body(request.max_content_length or 0)
    return cast(bytes, g.body)


def parse_body(body: bytes, values: int) -> Any:
    """The JSON document in it. Raises `ValueError` for what is none, a `Problem` for more than so many values, and
    `NoRoom`."""
    charge_values(body, values)
    return parse(body, values)


def charge_values(body: bytes, values: int) -> None:
    """Take what the body's values will need beside its text. Raises a `Problem` for too many, and `NoRoom`."""
    counted = count_values(body, values)
    if counted > values:
        raise Problem(422, "json_too_complex", str(TooManyValues(values)))
    _account().take(VALUE_BYTES * counted)


def _account() -> Account:
    if "bodies" not in g:
        g.bodies = Account(cast(ByteBudget, current_app.extensions[EXTENSION]))
    return cast(Account, g.bodies)
