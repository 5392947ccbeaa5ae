"""Blueprints of the addresses of one session."""

from __future__ import annotations

from flask import Blueprint, Response, render_template, request

from app.web.api import ApiError, api
from app.web.error_pages import shown, to_problem


def session_blueprint(name: str) -> Blueprint:
    """A blueprint for addresses under `/sessions/<uuid>`, which says so when the session is gone."""
    blp = Blueprint(f"web_session_{name}", __name__, url_prefix="/sessions/<uuid>")
    blp.register_error_handler(ApiError, _gone_or_refused)
    return blp


def _gone_or_refused(error: ApiError) -> Response:
    """For a session that is not there, a page that offers its backups; anything else as everywhere."""
    if error.code != "session_not_found" or request.method != "GET":
        return shown(to_problem(error))
    if request.headers.get("HX-Request"):
        return Response(status=204, headers={"HX-Refresh": "true"})
    uuid = (request.view_args or {})["uuid"]
    try:
        listed = api().get(f"/session/{uuid}/backups", limit=1000)
    except ApiError:
        # Whatever the reason, the session is not there.
        return shown(to_problem(error))
    return Response(render_template("session/gone.html", uuid=uuid, listed=listed), 404, mimetype="text/html")
