"""Requests to agents about ports."""

from __future__ import annotations

import math

from app.agent.protocol import PORTS_MOST
from app.core.agents.agent import Agent
from app.core.agents.answers import checked, invalid
from app.core.agents.requests import AgentRequests
from app.core.ports.model import Port, port_of
from app.core.untrusted_json import LARGE

ABOUT = "ports"

LIST_RESPONSE = PORTS_MOST * 1_024
"""Bytes of all ports: 64 characters of a process's name each, of which JSON may write six for one, and the rest."""


class PortClient(AgentRequests):
    """Requests about ports. Every method raises as all `AgentRequests`."""

    def known(self, agent: Agent) -> list[Port]:
        """The ports where something listens, and those of services."""
        listed = self.json(agent, "GET", "/ports", most=LIST_RESPONSE, values=LARGE).get("ports")
        if not isinstance(listed, list) or len(listed) > PORTS_MOST:
            raise invalid(agent, ABOUT)
        return checked(agent, ABOUT, lambda: [port_of(each) for each in listed])

    def show(self, agent: Agent, port: int, wait: float) -> Port:
        """Any port, once its state does not pass by itself or after so many seconds."""
        said = self.json(agent, "GET", f"/ports/{port}?wait={math.floor(self.bounded(wait))}")
        found = checked(agent, ABOUT, lambda: port_of(said))
        if found.port != port:
            raise invalid(agent, ABOUT)
        return found
