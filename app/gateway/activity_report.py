"""Checks an agent's report of activity in its workspace, of what it uses, and of its services. The workspace's user may
have forged it.

Reports have ages instead of times, so that the agent's clock need not agree with ours.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

from app.agent.protocol import SERVICE_NAME, SERVICES_MOST, ServiceState
from app.core.agents.answers import known, matching, port_number, text
from app.core.errors import InvalidRequest
from app.core.sessions.model import Signal
from app.core.sessions.reported_services import ReportedService
from app.core.sessions.resources import Sample
from app.core.signal_kinds import QUIET, SIGNALS

INSIDE = frozenset(name for name, kind in SIGNALS.items() if kind.by_agent)
"""The activity signals that agents report."""

MOST_CORES, MOST_BYTES = 4_096.0, 2**50

OLDEST = 86_400.0
"""s; older signals count as this old."""


@dataclass(frozen=True)
class QuietLimits:
    """s for which quiet work counts: after it was last seen at work, and from now on, if it asks for that."""

    quiet: float
    asked: float


def read_activity(document: Any, now: float, limits: QuietLimits) -> dict[str, Signal]:
    """The signals in `{"signals": {name: {"age": s, "detail"?: text}}}`. That of quiet work has `quiet`, the seconds
    since it was seen at work, or `left`, those that it asks to be kept up for, or both; one that counts no more is left
    out. Raises `InvalidRequest`."""
    signals = document.get("signals") if isinstance(document, dict) else None
    if not isinstance(signals, dict) or not signals.keys() <= INSIDE:
        raise InvalidRequest(f"`signals` must be an object with only {', '.join(sorted(INSIDE))}.")
    read = {name: _signal(signal, now) for name, signal in signals.items()}
    for name in QUIET & read.keys():
        until = _quiet_until(signals[name], now, limits)
        if until > now:
            read[name] = replace(read[name], until=until)
        else:
            del read[name]
    return read


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


def read_services(document: Any) -> list[ReportedService] | None:
    """The workspace's services, in `{"services": [{"name", "port": number or null, "state"}]}`, None if the report has
    none; raises `InvalidRequest`."""
    told = document.get("services") if isinstance(document, dict) else None
    if told is None:
        return None
    if not isinstance(told, list) or len(told) > SERVICES_MOST:
        raise InvalidRequest(f"`services` must be a list of at most {SERVICES_MOST}.")
    try:
        return [_service(each) for each in told]
    except ValueError as error:
        raise InvalidRequest("A service must have a name, a port or null, and a state.") from error


def _service(told: Any) -> ReportedService:
    if not isinstance(told, dict):
        raise ValueError("no object")
    return ReportedService(
        name=matching(told.get("name"), SERVICE_NAME),
        port=known(told.get("port"), port_number),
        state=ServiceState(text(told.get("state"))),
    )


def _amount(told: dict[str, Any], name: str) -> float:
    value = told.get(name)
    # An integer may be larger than any float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise InvalidRequest(f"`{name}` must be a number, 0 or more.")
    return value


def _signal(signal: Any, now: float) -> Signal:
    if not isinstance(signal, dict):
        raise InvalidRequest("A signal must be an object.")
    detail = signal.get("detail", "")
    if not isinstance(detail, str):
        raise InvalidRequest("`detail` of a signal must be a string.")
    return Signal(now - min(_amount(signal, "age"), OLDEST), detail=detail)


def _quiet_until(signal: dict[str, Any], now: float, limits: QuietLimits) -> float:
    ends = [0.0]
    if "quiet" in signal:
        ends.append(now - _amount(signal, "quiet") + limits.quiet)
    if "left" in signal:
        ends.append(now + min(_amount(signal, "left"), limits.asked))
    return max(ends)
