"""What a request brings, and the answer that has nothing to say."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, request

from app.sessions.errors import InvalidRequest


def json_body(most: int) -> Any:
    """The JSON a request brings, of so many bytes at most; raises `InvalidRequest`, and 413 by Flask's exception."""
    request.max_content_length = most
    try:
        return json.loads(request.get_data(cache=False))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("The body is not valid JSON.") from error


def nothing() -> Response:
    """It is done."""
    return Response(status=204)
