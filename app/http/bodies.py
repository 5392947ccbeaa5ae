"""Request bodies: each up to its own size, and all together within the process's budget."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, cast

from flask import Flask, current_app, g, request
from werkzeug.exceptions import ClientDisconnected

from app.core.byte_budget import Account, ByteBudget
from app.core.errors import InvalidRequest
from app.core.untrusted_json import SMALL, VALUE_BYTES, TooManyValues, count_values, parse, without_lone_surrogates
from app.http.problems import Problem

EXTENSION = "workspace_bodies"

PIECE = 65_536
"""Bytes read at a time: a slow sender takes no more of the budget than it has sent."""


def register_bodies(app: Flask, budget: ByteBudget) -> None:
    """Charge the budget for each request's body until its view has returned; streamed answers are not charged."""
    app.extensions[EXTENSION] = budget
    app.teardown_request(lambda _: forget_body())


def forget_body() -> None:
    """Release the request's share of the budget early, if the request stays open after its answer."""
    g.pop("body", None)
    account: Account | None = g.pop("bodies", None)
    if account is not None:
        account.close()


def read_body(most: int) -> bytes:
    """The body, up to `most` bytes. Raises Flask's exception for 413 if it has more, and `NoRoom`."""
    request.max_content_length = most
    account, body = _account(), io.BytesIO()
    while piece := request.stream.read(PIECE):
        account.take(len(piece))
        body.write(piece)
    return body.getvalue()


def body_pieces(size: int) -> Iterator[bytes]:
    """The body in pieces of `size` bytes, of which the last one may be shorter, not charged to the budget. Raises
    Flask's exceptions for 413, if there is more than this endpoint takes, and for a body that the client did not send
    to its end."""
    total, sent = request.content_length, 0
    while total is None or sent < total:
        wanted = size if total is None else min(size, total - sent)
        # Not in parts as above: for each the server copies all that it has received.
        piece = request.stream.read(wanted)
        while len(piece) < wanted and (more := request.stream.read(wanted - len(piece))):
            piece += more
        if len(piece) < wanted and total is not None:
            raise ClientDisconnected
        if piece:
            yield piece
        if len(piece) < wanted:
            return
        sent += len(piece)


def body_of_request() -> bytes:
    """The body, up to the size allowed for this endpoint; read once, then kept."""
    if "body" not in g:
        g.body = read_body(request.max_content_length or 0)
    return cast(bytes, g.body)


def parse_body(body: bytes, values: int) -> Any:
    """The JSON document in a body. Raises `ValueError` for invalid JSON, a `Problem` for more than `values` values, and
    `NoRoom`."""
    charge_values(body, values)
    return parse(body, values)


def charge_values(body: bytes, values: int) -> None:
    """Charge the budget for the body's parsed values. Raises a `Problem` for too many values, and `NoRoom`."""
    counted = count_values(body, values)
    if counted > values:
        raise Problem(422, "json_too_complex", str(TooManyValues(values)))
    _account().take(VALUE_BYTES * counted)


def json_body(most: int, values: int = SMALL) -> Any:
    """The JSON body, of `most` bytes and `values` values at most. Raises `InvalidRequest`, a `Problem` for too many
    values, `NoRoom`, and Flask's exception for 413."""
    return json_of(read_body(most), values)


def json_of(body: bytes, values: int) -> Any:
    """The JSON document in a body that has been read, without lone surrogates; raises as `json_body`."""
    try:
        return without_lone_surrogates(parse_body(body, values))
    except ValueError as error:
        raise InvalidRequest("The body is not valid JSON.") from error


def _account() -> Account:
    if "bodies" not in g:
        g.bodies = Account(cast(ByteBudget, current_app.extensions[EXTENSION]))
    return cast(Account, g.bodies)
