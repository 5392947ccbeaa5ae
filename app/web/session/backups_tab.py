"""A session's backups: make one, download, restore into a new session, delete."""

from __future__ import annotations

from functools import partial
from typing import Any

from flask import Response, render_template, request

from app.web.api import ApiError, api
from app.web.relay import part_asked, relayed
from app.web.session.blueprint import session_blueprint
from app.web.session.page import newest_event, show

blp = session_blueprint("backups")

PAGE = 50


@blp.get("/backups")
def index(uuid: str) -> str:
    """The backups, newest first. `since` is the newest event before a backup was asked for: it shows how that goes."""
    return show(uuid, "backups", partial(_live, since=request.args.get("since", "")))


@blp.get("/backups/live")
def live(uuid: str) -> str:
    """What changes when a backup ends."""
    return render_template("session/_backups_live.html", uuid=uuid, **_live(uuid, request.args.get("since", "")))


@blp.get("/backups/list")
def listed(uuid: str) -> str:
    """A page of the list."""
    return render_template("session/_backups.html", uuid=uuid, **_listed(uuid, request.args.get("cursor")))


@blp.post("/backup")
def make(uuid: str) -> Response:
    """Ask for a backup; answers the tab, which shows its end."""
    since = newest_event(uuid)
    api().post(f"/session/{uuid}/backup")
    shown = show(uuid, "backups", partial(_live, since=since))
    return Response(shown, headers={"HX-Push-Url": f"/sessions/{uuid}/backups?since={since}"})


@blp.get("/backups/<name>/download")
def download(uuid: str, name: str) -> Response:
    """The zip, or the part of it that the browser asks for."""
    return relayed(api().open("GET", f"/backups/{name}/download", headers=part_asked()))


@blp.post("/backups/<name>/restore")
def restore(uuid: str, name: str) -> Response:
    """A new session with the files of a backup; leads to its page."""
    made = api().post(f"/backups/{name}/restore")
    return Response(status=204, headers={"HX-Redirect": f"/sessions/{made['uuid']}"})


@blp.post("/backups/<name>/delete")
def delete(uuid: str, name: str) -> str:
    """Delete a backup; answers the list."""
    api().delete(f"/backups/{name}")
    try:
        left = _listed(uuid)
    except ApiError as error:
        if error.code != "session_not_found":
            raise
        # It was all that was known of a session that is gone.
        left = {"listed": {"backups": []}}
    return render_template("session/_backups.html", uuid=uuid, **left)


def _live(uuid: str, since: str) -> dict[str, Any]:
    """The newest backups, the end of the one asked for after the event `since`, None while there is none, and the
    session's status: of one that is deleted no more backups are made."""
    ended = None
    if since:
        events = api().get(f"/session/{uuid}/events/past", type="backup", limit=1)["events"]
        ended = next((each for each in events if _is_after(each["id"], since)), None)
    status = api().get(f"/session/{uuid}")["session"]["status"]
    return {"since": since, "ended": ended, "status": status, **_listed(uuid)}


def _listed(uuid: str, cursor: str | None = None) -> dict[str, Any]:
    """A page of the list, which outlives its session."""
    return {"listed": api().get(f"/session/{uuid}/backups", limit=PAGE, cursor=cursor)}


def _is_after(event: str, other: str) -> bool:
    """Whether an event came after another: their ids are milliseconds and a number."""
    try:
        first, second = ([int(part) for part in each.split("-")] for each in (event, other))
    except ValueError:
        return False
    return first > second
