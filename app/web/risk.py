"""What the deletion of a session puts at risk, in words for the person who is about to ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.core.sessions.model import UP, Status
from app.core.signal_kinds import SIGNALS
from app.web.api import api
from app.web.words import at_risk, span

JUST_NOW = 20.0
"""s: what goes on is reported that often."""

PARTIAL = "backup_incomplete"
"""The reason code of a deletion that failed because files could not be read."""


@dataclass(frozen=True)
class Risk:
    """One session that may be deleted. `now` is what goes on in it, `unsaved` its unsaved work, as it is now or, unless
    `asked`, as it was when it was last stopped; None if it is awake and does not say. `backup` is the newest one, None
    for none."""

    uuid: str
    user_id: str
    status: str
    now: list[str]
    unsaved: list[str] | None
    asked: bool
    waiting: int
    backup: Mapping[str, Any] | None
    unreadable: bool


def risk_of(uuid: str, *, ask: bool) -> Risk:
    """What a deletion of this session would put at risk; raises `ApiError`. With `ask`, a workspace that is awake is
    asked for its unsaved work, which may take seconds."""
    answer = api().get(f"/session/{uuid}")
    session = answer["session"]
    backups = api().get(f"/session/{uuid}/backups", limit=1)["backups"]
    asked = ask and session["status"] == Status.ACTIVE
    found = api().get(f"/session/{uuid}/risk") if asked else {"known": True, "risk": session["risk"]}
    return Risk(
        uuid=uuid,
        user_id=session["user_id"],
        status=session["status"],
        now=under_way(api().get(f"/session/{uuid}/activity")["signals"]) if session["status"] in UP else [],
        unsaved=at_risk(found["risk"]) if found["known"] else None,
        asked=asked,
        waiting=answer["queue_length"],
        backup=backups[0] if backups else None,
        unreadable=session["reason_code"] == PARTIAL or bool(session["backup_lacks"]),
    )


def under_way(signals: Sequence[Mapping[str, Any]]) -> list[str]:
    """What goes on in a session, by the signals that keep it awake now, and when it last did."""
    ages = {each["signal"]: each["age_seconds"] or 0.0 for each in signals if each["holds"]}
    return [
        f"{kind.in_use} {'just now' if ages[name] < JUST_NOW else f'{span(ages[name])} ago'}"
        for name, kind in SIGNALS.items()
        if kind.in_use and name in ages
    ]
