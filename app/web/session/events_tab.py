"""A session's raw events, newest first."""

from __future__ import annotations

import json
from typing import Any

from flask import render_template, request

from app.web.api import api
from app.web.session import happenings
from app.web.session.blueprint import session_blueprint
from app.web.session.page import show

blp = session_blueprint("events")

PAGE = 100

TYPES = (*happenings.TYPES, "message", "token", "tool_call", "tool_result")
"""Those of the timeline, and those of the conversation."""


@blp.get("/events")
def index(uuid: str) -> str:
    """The events, of one type if one is chosen."""
    return show(uuid, "events", _listed, types=TYPES)


@blp.get("/events/list")
def listed(uuid: str) -> str:
    """More of them."""
    return render_template("session/_events.html", uuid=uuid, **_listed(uuid))


def _listed(uuid: str) -> dict[str, Any]:
    chosen = request.args.get("type", "")
    chosen = chosen if chosen in TYPES else ""
    query = {"type": chosen or None, "cursor": request.args.get("cursor"), "limit": PAGE}
    past = api().get(f"/session/{uuid}/events/past", **query)
    rows = [each | {"text": json.dumps(each["data"], ensure_ascii=False)} for each in past["events"]]
    return {"rows": rows, "older": past["next_cursor"], "chosen": chosen}
