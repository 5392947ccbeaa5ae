"""How a run of a program in a workspace ended, in words: of a command, or of a service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.agent.protocol import ExecReason

REASONS: Mapping[str, str] = {
    ExecReason.TIMEOUT: "ended at its time limit",
    ExecReason.KILLED: "ended on request",
    ExecReason.SLEEP: "ended by the session's sleep",
    ExecReason.STOPPED: "ended with its workspace",
    ExecReason.PROCESSES: "ended: it had too many processes",
    ExecReason.NOT_BEGUN: "not begun: the shell ended before it, or its folder was gone",
    ExecReason.LOST: "lost: how far it came is not known",
}
"""Why a run did not end by itself."""

CALM = frozenset({ExecReason.KILLED, ExecReason.SLEEP, ExecReason.STOPPED})
"""Reasons that are no failure of the program: it was to end."""


def ending(told: Mapping[str, Any]) -> str:
    """How what the API tells of the run ended; "" if it did not, or it is not known."""
    if reason := told.get("reason"):
        return REASONS[reason]
    if signal := told.get("signal"):
        return f"ended by {signal}"
    return "" if told.get("exit_code") is None else f"exit code {told['exit_code']}"


def failed(told: Mapping[str, Any]) -> bool:
    """Whether the program ended as it should not."""
    return told["reason"] not in CALM if told["reason"] else told["exit_code"] != 0
