"""JSON request bodies, and the empty answer."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.core.errors import InvalidRequest
from app.core.untrusted_json import SMALL, without_lone_surrogates
from app.http.bodies import parse_body, read_body


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


def nothing() -> Response:
    """An empty answer, 204."""
    return Response(status=204)
