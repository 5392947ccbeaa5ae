"""Ports of workspaces, as an agent tells of them: with the types of a true answer, and no more than that is known of
it, as the workspace's user controls the agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.agent.protocol import SERVICE_NAME, PortState
from app.core.agents.answers import known, matching, port_number, text

PROCESS_LENGTH = 64
"""Characters of a process's name; the kernel keeps 15 bytes of it."""


@dataclass(frozen=True)
class Port:
    """A port, what is there, and of which process and service; None where that is not known, or there is none."""

    port: int
    state: PortState
    process: str | None = None
    service: str | None = None

    @property
    def coming(self) -> bool:
        """Whether its state passes by itself."""
        return self.state is PortState.STARTING


def port_of(told: Any) -> Port:
    """The port in an agent's answer. Raises ValueError for what is none."""
    if not isinstance(told, dict):
        raise ValueError("no object")
    return Port(
        port=port_number(told.get("port")),
        state=PortState(text(told.get("state"))),
        process=known(told.get("process"), _printable),
        service=known(told.get("service"), lambda name: matching(name, SERVICE_NAME)),
    )


def _printable(value: Any) -> str | None:
    """The name of a process, which may give itself any; None if nothing of it can be shown."""
    return "".join(each for each in text(value)[:PROCESS_LENGTH] if each.isprintable()) or None
