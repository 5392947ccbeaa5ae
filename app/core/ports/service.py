"""The use cases of ports of workspaces: see what is there, and wait until something is.

Only the workspace knows, so each call needs it awake. To open a port or close it (`openings.py`) needs no workspace.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.core.agents.agent import Agent
from app.core.ports.client import PortClient
from app.core.ports.model import Port
from app.core.reach import Reach, WaitingAsk, Workspaces


class Ports:
    """The ports of all sessions. Every method raises as `Workspaces.ask`."""

    def __init__(self, workspaces: Workspaces, client: PortClient) -> None:
        self._workspaces = workspaces
        self._client = client

    def known(self, uuid: str, reach: Reach) -> Sequence[Port]:
        """The ports where something listens, and those of services, by number and each once."""
        told = {each.port: each for each in self._workspaces.ask(uuid, reach, self._client.known)}
        return [told[port] for port in sorted(told)]

    def show(self, uuid: str, port: int, reach: Reach, wait: float = 0.0) -> Port:
        """Any port, once its state does not pass by itself or after so many seconds."""

        def look(agent: Agent, left: float) -> Port:
            return self._client.show(agent, port, left)

        def further(found: Port) -> WaitingAsk[Port] | None:
            return look if found.coming else None

        return self._workspaces.awaited(uuid, reach, wait, look, further)
