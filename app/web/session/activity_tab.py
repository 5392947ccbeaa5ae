"""Why a session is awake, and when it sleeps: each signal with its last time, and the verdict."""

from __future__ import annotations

from typing import Any

from flask import render_template

from app.core.sessions.idle_policy import WAITING, WAKE
from app.core.signal_kinds import SIGNALS
from app.web.api import api
from app.web.session.blueprint import session_blueprint
from app.web.session.page import show

blp = session_blueprint("activity")

LABELS = {
    WAKE: "It woke",
    WAITING: "Prompts wait for the agent",
    **{name: kind.label for name, kind in SIGNALS.items()},
}


@blp.get("/activity")
def index(uuid: str) -> str:
    """All signals."""
    return show(uuid, "activity", activity_of)


@blp.get("/awake")
def awake(uuid: str) -> str:
    """The verdict alone, for the overview."""
    return render_template("session/_awake.html", uuid=uuid, **activity_of(uuid))


@blp.get("/signals")
def signals(uuid: str) -> str:
    """The verdict and all signals."""
    return render_template("session/_signals.html", uuid=uuid, **activity_of(uuid))


def activity_of(uuid: str) -> dict[str, Any]:
    """The signals, those that hold first, and the verdict."""
    found = api().get(f"/session/{uuid}/activity")
    by_weight = sorted(found["signals"], key=lambda each: (not each["holds"], each["age_seconds"] or float("inf")))
    rows = [each | {"label": LABELS.get(each["signal"], each["signal"])} for each in by_weight]
    seen = [each for each in rows if each["holds"] or each["last_at"]]
    never = [each["label"] for each in rows if each not in seen]
    return {"activity": found, "signals": seen, "never": never}
