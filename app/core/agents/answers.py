"""The parts of agents' answers, which may be anything: each function returns a value of the type it is to have, and
raises ValueError for another."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from app.core.agents.agent import Agent
from app.core.errors import AgentUnavailable

T = TypeVar("T")

LATEST = 1e11
"""Seconds since the epoch; later times are none."""

SIGNAL_PATTERN = re.compile(r"SIG[A-Z0-9+]{1,12}")
"""The name of a signal that ends a process."""

LARGEST = 2**53
"""The largest number that any reader of JSON takes as it is."""


def checked(agent: Agent, what: str, read: Callable[[], T]) -> T:
    """What `read` makes of an answer. Raises `AgentUnavailable` for one that is none about `what`."""
    try:
        return read()
    except ValueError as error:
        raise invalid(agent, what) from error


def invalid(agent: Agent, what: str) -> AgentUnavailable:
    return AgentUnavailable(f"The agent of session {agent.uuid} returned no valid answer about {what}.")


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def matching(value: Any, pattern: re.Pattern[str]) -> str:
    """A text that matches as a whole."""
    if not pattern.fullmatch(text(value)):
        raise ValueError("no such text")
    return str(value)


def truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("no truth value")
    return value


def whole(value: Any, least: int = 0, most: int = LARGEST) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError("no such number")
    return value


def moment(value: Any) -> float:
    """Seconds since the epoch."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LATEST:
        raise ValueError("no time")
    return float(value)


def exit_code(value: Any) -> int:
    """That of a process."""
    return whole(value, 0, 255)


def port_number(value: Any) -> int:
    return whole(value, 1, 65_535)


def signal_name(value: Any) -> str:
    return matching(value, SIGNAL_PATTERN)


def known(value: Any, read: Callable[[Any], T]) -> T | None:
    """What `read` makes of a value that may not be there yet."""
    return None if value is None else read(value)
