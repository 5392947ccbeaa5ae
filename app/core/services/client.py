"""Requests to agents about services."""

from __future__ import annotations

import math
from dataclasses import asdict

from app.agent.protocol import SERVICE_NAME, SERVICES_MOST, FileFault
from app.core.access.agent_credentials import AgentCredentials
from app.core.agents.agent import Agent
from app.core.agents.answers import checked, invalid
from app.core.agents.requests import AgentRequests, Refusals
from app.core.byte_budget import ByteBudget
from app.core.errors import FileRefused, InvalidRequest, ServiceNotFound
from app.core.limit_errors import Owner, TooManyServices
from app.core.services.model import LogPiece, NewService, Service, piece_of, service_of

ABOUT = "services"

SERVICE_RESPONSE = 65_536
"""Bytes of a service: 10,000 of a command with its folder, of which JSON may write three for one, and the rest."""

LIST_RESPONSE = SERVICES_MOST * SERVICE_RESPONSE

LOG_RESPONSE = SERVICE_RESPONSE + 524_288
"""Bytes of 64 KiB of a log, of which JSON may write six for one, and the service."""


FULL: Refusals = {507: lambda said: FileRefused(FileFault.WORKSPACE_FULL, said)}


class ServiceClient(AgentRequests):
    """Requests about services, of which a workspace has `most`. Every method raises as all `AgentRequests`, and
    `ServiceNotFound` for an unknown name."""

    def __init__(self, secrets: AgentCredentials, timeout: float, budget: ByteBudget, most: int) -> None:
        super().__init__(secrets, timeout, budget)
        self._most = most

    def start(self, agent: Agent, wanted: NewService, wait: float) -> tuple[Service, bool]:
        """Define a service and start it, and wait until it is up; whether it is new. Raises `InvalidRequest`,
        `TooManyServices`, and `FileRefused` where the disk is full."""
        refusals: Refusals = {
            400: lambda said: InvalidRequest(f"The workspace's agent refused the service: {said}"),
            429: lambda _: TooManyServices(Owner.SESSION, agent.uuid, most=self._most),
            **FULL,
        }
        body = {**asdict(wanted), "wait": self.bounded(wait)}
        said = self.json(agent, "POST", "/services", body, refusals=refusals, most=SERVICE_RESPONSE)
        return checked(agent, ABOUT, lambda: (service_of(agent.uuid, said), said.get("new") is True))

    def known(self, agent: Agent) -> list[Service]:
        """All services of the workspace."""
        listed = self.json(agent, "GET", "/services", most=LIST_RESPONSE).get("services")
        if not isinstance(listed, list) or len(listed) > SERVICES_MOST:
            raise invalid(agent, ABOUT)
        return checked(agent, ABOUT, lambda: [service_of(agent.uuid, each) for each in listed])

    def show(self, agent: Agent, name: str, wait: float) -> Service:
        """A service, once its state does not pass by itself or after so many seconds."""
        return self._service(agent, "GET", name, f"?wait={math.floor(self.bounded(wait))}")

    def restart(self, agent: Agent, name: str, wait: float) -> Service:
        """End a service and start it again; then as `show`."""
        return self._service(agent, "POST", name, "/restart", {"wait": self.bounded(wait)})

    def stop(self, agent: Agent, name: str) -> None:
        """End a service, and forget it with its log. Raises `FileRefused` where the disk is full."""
        self.json(agent, "DELETE", _path(name), refusals={**_unknown(name), **FULL})

    def piece(self, agent: Agent, name: str, at: str, wait: float) -> LogPiece:
        """The next of a log, `at` as `offset=N`, `tail=N`, or "" for its beginning, once there is some or the service
        has ended."""
        path = f"{_path(name)}/log?wait={math.floor(self.bounded(wait))}&{at}"
        said = self.json(agent, "GET", path, refusals=_unknown(name), most=LOG_RESPONSE)
        return checked(agent, ABOUT, lambda: piece_of(agent.uuid, said))

    def _service(self, agent: Agent, method: str, name: str, rest: str, body: object = None) -> Service:
        path = f"{_path(name)}{rest}"
        said = self.json(agent, method, path, body, refusals=_unknown(name), most=SERVICE_RESPONSE)
        return checked(agent, ABOUT, lambda: service_of(agent.uuid, said))


def _path(name: str) -> str:
    """Where the agent has the service. Raises `ServiceNotFound` for a name that none has: it comes from a caller's
    path."""
    if not SERVICE_NAME.fullmatch(name):
        raise ServiceNotFound(name)
    return f"/services/{name}"


def _unknown(name: str) -> Refusals:
    return {404: lambda _: ServiceNotFound(name)}
