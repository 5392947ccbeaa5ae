"""A session at a glance: why it is awake, its last start, what happened, and the facts."""

from __future__ import annotations

from typing import Any

from flask import render_template

from app.web.api import api
from app.web.session.activity_tab import activity_of
from app.web.session.blueprint import session_blueprint
from app.web.session.happenings import TYPES, happening
from app.web.session.page import show
from app.web.session.phases import steps_of
from app.web.session.resources_tab import resources_of

blp = session_blueprint("overview")

SHOWN = 40
"""Entries of the timeline."""


@blp.get("")
def index(uuid: str) -> str:
    """The overview."""
    return show(uuid, "", _all)


@blp.get("/facts")
def facts(uuid: str) -> str:
    """The facts, which change with the session's state."""
    return render_template("session/_facts.html", uuid=uuid, **facts_of(uuid))


@blp.get("/timeline")
def timeline(uuid: str) -> str:
    """The timeline, which grows with the events."""
    return render_template("session/_timeline.html", uuid=uuid, **timeline_of(uuid))


def _all(uuid: str) -> dict[str, Any]:
    return facts_of(uuid) | activity_of(uuid) | resources_of(uuid) | timeline_of(uuid)


def facts_of(uuid: str) -> dict[str, Any]:
    """The session itself, and its last start."""
    about = api().get(f"/session/{uuid}")
    return {"about": about, "steps": steps_of(about["phases"])}


def timeline_of(uuid: str) -> dict[str, Any]:
    """What happened, newest first."""
    past = api().get(f"/session/{uuid}/events/past", type=",".join(TYPES), limit=SHOWN)
    return {"happenings": [happening(event) for event in past["events"]], "older": past["next_cursor"]}
