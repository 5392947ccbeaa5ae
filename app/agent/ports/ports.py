"""The ports of this workspace: on which something listens, and those of its services."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from app.agent.ports.processes import name_of, started_in
from app.agent.protocol import COMING, PORTS_MOST, PortState, ServiceState
from app.agent.services.service import Service
from app.agent.services.services import Services
from app.agent.sockets import holders, listening

LOOK = 1.0
"""Seconds after which a call that waits for a service looks whether another program listens on its port."""


class Port(NamedTuple):
    """A port, the name of the process that listens on it, and the service whose port it is."""

    number: int
    state: PortState
    process: str | None
    service: str | None

    def told(self) -> dict[str, Any]:
        """As the manager is told."""
        return {"port": self.number, "state": self.state, "process": self.process, "service": self.service}


class User(NamedTuple):
    """A service that has a port, and its state as it was before anybody looked who listens: what listens by it is seen
    then."""

    service: Service
    state: ServiceState


class Ports:
    """The ports of the workspace `uuid`, but for the service's `own`. In a network of its own each listening socket is
    the workspace's, also one whose process can't be seen from here; in a `shared` one, those of processes that were
    started in it."""

    def __init__(self, services: Services, uuid: str, own: Collection[int], *, shared: bool) -> None:
        self._services = services
        self._uuid = uuid
        self._own = own
        self._shared = shared

    def all(self) -> list[Port]:
        """By number, `PORTS_MOST` at most. Raises `NotReady`."""
        services: dict[int, list[Service]] = {}
        for service in self._services.all():
            if service.definition.port is not None and service.definition.port not in self._own:
                services.setdefault(service.definition.port, []).append(service)
        users = {port: _user(found) for port, found in services.items()}
        processes = self._listening()
        return [_port(each, users.get(each), processes) for each in sorted({*users, *processes})[:PORTS_MOST]]

    def find(self, port: int, wait: float = 0.0) -> Port:
        """A port, once it is not `starting`, or after `wait` seconds. Raises `NotReady`."""
        deadline = time.monotonic() + wait
        while True:
            user = self._user_of(port)
            found = _port(port, user, self._listening(port))
            left = deadline - time.monotonic()
            if user is None or found.state is not PortState.STARTING or left <= 0:
                return found
            user.service.wait(min(left, LOOK))

    def _user_of(self, port: int) -> User | None:
        if port in self._own:
            return None
        return _user(each for each in self._services.all() if each.definition.port == port)

    def _listening(self, only: int | None = None) -> dict[int, str | None]:
        """The ports, or this one, on which something listens that can be reached by loopback, each with the name of a
        process."""
        ports = {
            each.link: each.port
            for each in listening(os.getpid())
            if each.loopback and each.port not in self._own and only in (None, each.port)
        }
        if not ports:
            return {}
        held = holders(set(ports))
        if self._shared:
            ours = started_in(self._uuid, {pid for pids in held.values() for pid in pids})
            held = {link: kept for link, pids in held.items() if (kept := [pid for pid in pids if pid in ours])}
        found: dict[int, str | None] = {} if self._shared else dict.fromkeys(ports.values())
        return found | {ports[link]: name_of(pids[0]) for link, pids in held.items()}


def _user(services: Iterable[Service]) -> User | None:
    """Of the services with one port, the one that runs, else one that is to."""
    users = [User(each, each.state) for each in services]
    return min(users, key=lambda user: (user.state is not ServiceState.RUNNING, user.state not in COMING), default=None)


def _port(number: int, user: User | None, processes: dict[int, str | None]) -> Port:
    """A port, by its service and what listens where."""
    state = PortState.STOPPED
    if number in processes:
        state = PortState.LISTENING
    elif user is not None and user.state in COMING:
        state = PortState.STARTING
    return Port(number, state, processes.get(number), None if user is None else user.service.definition.name)
