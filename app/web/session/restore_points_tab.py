"""A session's restore points: make one, roll back to one, start a new session from one."""

from __future__ import annotations

from typing import Any

from flask import Response, render_template, request

from app.web.api import api
from app.web.session.blueprint import session_blueprint
from app.web.session.page import show

blp = session_blueprint("restore_points")

PAGE = 50


@blp.get("/restore-points")
def index(uuid: str) -> str:
    """The restore points, newest first."""
    return show(uuid, "restore-points", _listed)


@blp.get("/restore-points/live")
def live(uuid: str) -> str:
    """What changes when a point is made."""
    return render_template("session/_restore_points_live.html", uuid=uuid, **_listed(uuid))


@blp.get("/restore-points/list")
def listed(uuid: str) -> str:
    """A page of the list."""
    return render_template("session/_restore_points.html", uuid=uuid, **_listed(uuid, request.args.get("cursor")))


@blp.post("/restore-points")
def make(uuid: str) -> str:
    """Ask for a point; answers the tab, which shows it when it is made."""
    api().post(f"/session/{uuid}/restore-points")
    return show(uuid, "restore-points", lambda uuid: {**_listed(uuid), "asked": True})


@blp.post("/restore-points/<point_id>/restore")
def restore(uuid: str, point_id: str) -> Response:
    """A new session with the files of a restore point; leads to its page."""
    made = api().post(f"/session/{uuid}/fork", {"restore_point": point_id})
    return Response(status=204, headers={"HX-Redirect": f"/sessions/{made['uuid']}"})


@blp.post("/restore-points/<point_id>/rollback")
def roll_back(uuid: str, point_id: str) -> str:
    """Roll the session back in place; answers the tab, which shows it when it is done."""
    api().post(f"/session/{uuid}/rollback", {"restore_point": point_id})
    return show(uuid, "restore-points", _listed)


def _listed(uuid: str, cursor: str | None = None) -> dict[str, Any]:
    """How safe the files are, and a page of the points, the newest if there is no `cursor`."""
    points = api().get(f"/session/{uuid}/restore-points", limit=PAGE, cursor=cursor)
    return {"session": api().get(f"/session/{uuid}")["session"], "listed": points}
