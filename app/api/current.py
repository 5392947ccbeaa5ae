"""What views need: the core of this process, and facts about the current request."""

from __future__ import annotations

import json
from typing import Any, cast

from flask import Response, current_app, g

from app.core.composition import Core

EXTENSION = "workspace_sessions"
KEYRING = "keyring"


def core() -> Core:
    """The core of this process."""
    return cast(Core, current_app.extensions[EXTENSION])


def request_id() -> str:
    """The id of the current request."""
    return cast(str, g.request_id)


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer. Schemas only document answers, and tests compare both: dumping through them would double the
    cost of the most frequent call."""
    return Response(json.dumps(body), status, headers, mimetype="application/json")
