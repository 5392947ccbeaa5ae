"""Checks an agent's report of activity in its workspace, which the workspace's user may have forged.

Reports have ages instead of times, so that the agent's clock need not agree with ours.
"""

from __future__ import annotations

import math
from typing import Any

from app.core.errors import InvalidRequest
from app.core.sessions.model import Signal

INSIDE = frozenset({"editor", "terminal", "jobs"})
"""The activity signals that agents report; the manager sees the others itself."""

OLDEST = 86_400.0
"""s; older signals count as this old."""


def read_activity(document: Any, now: float) -> dict[str, Signal]:
    """The signals in `{"signals": {name: {"age": s, "detail"?: text}}}`; raises `InvalidRequest`."""
    signals = document.get("signals") if isinstance(document, dict) else None
    if not isinstance(signals, dict) or not signals.keys() <= INSIDE:
        raise InvalidRequest(f"`signals` must be an object with only {', '.join(sorted(INSIDE))}.")
    return {name: _signal(signal, now) for name, signal in signals.items()}


def _signal(signal: Any, now: float) -> Signal:
    age, detail = (signal.get("age"), signal.get("detail", "")) if isinstance(signal, dict) else (None, None)
    if isinstance(age, bool) or not isinstance(age, int | float) or not math.isfinite(age) or not age >= 0:
        raise InvalidRequest("`age` of a signal must be a number of seconds, 0 or more.")
    if not isinstance(detail, str):
        raise InvalidRequest("`detail` of a signal must be a string.")
    return Signal(now - min(age, OLDEST), detail=detail)
