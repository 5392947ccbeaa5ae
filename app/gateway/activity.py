"""Checks an agent's report of activity in its workspace and of what it uses. The workspace's user may have forged it.

Reports have ages instead of times, so that the agent's clock need not agree with ours.
"""

from __future__ import annotations

import math
from typing import Any

from app.core.errors import InvalidRequest
from app.core.sessions.model import Signal
from app.core.sessions.resources import Sample

INSIDE = frozenset({"editor", "terminal", "jobs"})
"""The activity signals that agents report; the manager sees the others itself."""

MOST_CORES, MOST_BYTES = 4_096.0, 2**50

OLDEST = 86_400.0
"""s; older signals count as this old."""


def read_activity(document: Any, now: float) -> dict[str, Signal]:
    """The signals in `{"signals": {name: {"age": s, "detail"?: text}}}`; raises `InvalidRequest`."""
    signals = document.get("signals") if isinstance(document, dict) else None
    if not isinstance(signals, dict) or not signals.keys() <= INSIDE:
        raise InvalidRequest(f"`signals` must be an object with only {', '.join(sorted(INSIDE))}.")
    return {name: _signal(signal, now) for name, signal in signals.items()}


def read_resources(document: Any) -> Sample | None:
    """What the workspace uses, in `{"resources": {"cpu": cores, "memory_bytes", "disk_bytes"}}`, None if the report has
    none; raises `InvalidRequest`. More than any machine has is cut."""
    told = document.get("resources") if isinstance(document, dict) else None
    if told is None:
        return None
    if not isinstance(told, dict):
        raise InvalidRequest("`resources` must be an object with cpu, memory_bytes and disk_bytes.")
    cpu, memory, disk = (_amount(told, name) for name in ("cpu", "memory_bytes", "disk_bytes"))
    return Sample(min(cpu, MOST_CORES), int(min(memory, MOST_BYTES)), int(min(disk, MOST_BYTES)))


def _amount(told: dict[str, Any], name: str) -> float:
    value = told.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InvalidRequest(f"`{name}` must be a number, 0 or more.")
    return value


def _signal(signal: Any, now: float) -> Signal:
    age, detail = (signal.get("age"), signal.get("detail", "")) if isinstance(signal, dict) else (None, None)
    if isinstance(age, bool) or not isinstance(age, int | float) or not math.isfinite(age) or not age >= 0:
        raise InvalidRequest("`age` of a signal must be a number of seconds, 0 or more.")
    if not isinstance(detail, str):
        raise InvalidRequest("`detail` of a signal must be a string.")
    return Signal(now - min(age, OLDEST), detail=detail)
