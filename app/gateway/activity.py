"""What an agent tells of the use of its workspace, checked: whoever works there may write anything.

It tells ages instead of times, so that its clock need not agree with ours.
"""

from __future__ import annotations

import math
from typing import Any

from app.sessions.errors import InvalidRequest
from app.sessions.model import Signal

INSIDE = frozenset({"editor", "terminal", "jobs"})
"""The signals that are seen from inside; the others are the manager's own to see."""

OLDEST = 86_400.0
"""s: an age above this tells nothing any more."""


def read_activity(document: Any, now: float) -> dict[str, Signal]:
    """The signals in `{"signals": {name: {"age": s, "detail"?: text}}}`; raises `InvalidRequest`. No age is
    negative: nothing was seen in the future."""
    told = document.get("signals") if isinstance(document, dict) else None
    if not isinstance(told, dict) or not told.keys() <= INSIDE:
        raise InvalidRequest(f"A report has signals: {', '.join(sorted(INSIDE))}.")
    return {name: _signal(each, now) for name, each in told.items()}


def _signal(told: Any, now: float) -> Signal:
    age, detail = (told.get("age"), told.get("detail", "")) if isinstance(told, dict) else (None, None)
    if isinstance(age, bool) or not isinstance(age, int | float) or not math.isfinite(age) or not age >= 0:
        raise InvalidRequest("A signal has its age in seconds, from 0 on.")
    if not isinstance(detail, str):
        raise InvalidRequest("The detail of a signal is text.")
    return Signal(now - min(age, OLDEST), detail=detail)
