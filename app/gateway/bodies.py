"""What a request brings, and the answer that has nothing to say."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.bodies import parse_body, read_body
from app.sessions.errors import InvalidRequest
from app.sessions.foreign_json import SMALL


def json_body(most: int, values: int = SMALL) -> Any:
    """The JSON a request brings, of so many bytes and values at most; raises `InvalidRequest`, a `Problem` for too many
    values, `NoRoom`, and 413 by Flask's exception."""
    try:
        return parse_body(read_body(most), values)
    except ValueError as error:
        raise InvalidRequest("The body is not valid JSON.") from error


def nothing() -> Response:
    """It is done."""
    return Response(status=204)
