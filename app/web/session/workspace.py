"""What the tabs on a running workspace share: asking it only while it runs, since a look wakes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.core.sessions.model import Status
from app.web.api import ApiError, api

UNREACHED = frozenset({"asleep", "agent_unavailable", "agent_not_ready", "wake_late", "illegal_state"})
"""Errors of a call that did not get to the workspace, as while it is stopped or replaced."""

NO_WAKE = {"wake": "false"}
"""The query of a look. Only what a person asks for by a button wakes a session."""


def look(uuid: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `read` finds in the workspace. Where it does not run or does not answer, `down`: the session's status, and
    why it could not be asked."""
    session = api().get(f"/session/{uuid}")["session"]
    if session["status"] != Status.ACTIVE:
        return {"session": session, "down": {"status": session["status"], "why": ""}}
    try:
        return {"session": session, "down": None} | read()
    except ApiError as error:
        if error.code not in UNREACHED:
            raise
        return {"session": session, "down": {"status": session["status"], "why": error.detail}}
