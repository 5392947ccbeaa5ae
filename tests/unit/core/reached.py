"""Workspaces that are up, in a time that passes in pauses alone."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from app.core.reach import Reach, Workspaces
from app.core.sessions.model import Status

REACH = Reach(wake=True, seconds=1.0)


class Clock:
    """A time that passes in pauses alone."""

    def __init__(self) -> None:
        self._now = time.time()

    def now(self) -> float:
        return self._now

    def pause(self, seconds: float) -> None:
        self._now += seconds


def reached(clock: Clock) -> Workspaces:
    """Those of sessions that are up, whose agents are there."""
    up = SimpleNamespace(status=Status.ACTIVE)
    sessions, inbox = SimpleNamespace(get=lambda _: up), SimpleNamespace(agent=lambda _: object())
    activity = SimpleNamespace(note=lambda *_: None)
    workspaces: Any = Workspaces
    found: Workspaces = workspaces(sessions, inbox, activity, "exec", clock.now, clock.pause)
    return found
