"""Who did what to a session, for keys that see all sessions."""

from __future__ import annotations

from typing import Any

from flask import render_template, request

from app.web.api import api
from app.web.session.blueprint import session_blueprint
from app.web.session.page import show

blp = session_blueprint("audit")

PAGE = 50


@blp.get("/audit")
def index(uuid: str) -> str:
    """The calls about the session, newest first."""
    return show(uuid, "audit", _listed)


@blp.get("/audit/list")
def listed(uuid: str) -> str:
    """More of them."""
    return render_template("session/_audit.html", uuid=uuid, **_listed(uuid))


def _listed(uuid: str) -> dict[str, Any]:
    found = api().get("/audit", uuid=uuid, limit=PAGE, cursor=request.args.get("cursor"))
    return {"entries": found["entries"], "older": found["next_cursor"]}
