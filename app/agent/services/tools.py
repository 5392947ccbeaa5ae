"""The model's tools for services: start one, see what they do and write, end one."""

from __future__ import annotations

import time
from typing import Any

from app.agent.execs.execs import Closed, NotReady, TooMany
from app.agent.execs.order import BadOrder
from app.agent.protocol import COMING, ServiceState
from app.agent.services.definition import read_definition
from app.agent.services.service import Service
from app.agent.services.services import Services
from app.agent.tools.child import TICK, Stop
from app.agent.tools.registry import FLAG, NUMBER, TEXT, Tool
from app.agent.tools.sandbox_path import ToolError

START_SECONDS = 20.0
"""How long a start is waited for."""

LOG_BYTES = 4_000
"""Of a log in a result."""


def tools_of(services: Services) -> tuple[Tool, ...]:
    """The tools for these services."""

    def start(given: dict[str, Any], stop: Stop) -> tuple[bool, str]:
        return _start(
            services,
            stop,
            given["name"],
            given["command"],
            given.get("cwd", "."),
            given.get("port"),
            given.get("autostart", False),
        )

    def show(given: dict[str, Any], stop: Stop) -> str:
        return _show(services, given.get("name", ""))

    def end(given: dict[str, Any], stop: Stop) -> str:
        return _stop(services, given["name"])

    return (
        Tool(
            "start_service",
            "Run a command on after this call, such as a development server, as the service `name` (letters, digits, "
            "_ and -). `port` is where it listens, which it also finds in $PORT: the call waits for that. It is "
            "started again when it fails, ended when the workspace sleeps, and with `autostart` started when it wakes. "
            "The same name with another command replaces it. Answers with its state and the end of its log.",
            {"name": TEXT, "command": TEXT, "cwd": TEXT, "port": NUMBER, "autostart": FLAG},
            ("name", "command"),
            start,
        ),
        Tool(
            "show_services",
            "Show what the services do; with `name`, one with the end of its log.",
            {"name": TEXT},
            (),
            show,
        ),
        Tool("stop_service", "End a service and forget it with its log.", {"name": TEXT}, ("name",), end),
    )


def _start(
    services: Services, stop: Stop, name: str, command: str, cwd: str, port: int | None, autostart: bool
) -> tuple[bool, str]:
    """Have a service run; whether it does, and what it says."""
    given = {"name": name, "command": command, "cwd": cwd, "port": port, "autostart": autostart}
    try:
        service, _ = services.start(read_definition(given))
    except BadOrder as e:
        raise ToolError(str(e)) from None
    except TooMany:
        raise ToolError("there are as many services as there may be; stop one first") from None
    except (NotReady, Closed):
        raise ToolError("services can't be started now, as the workspace starts or stops") from None
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and service.state in COMING and not stop():
        time.sleep(TICK)
    return service.state is ServiceState.RUNNING, _described(service)


def _show(services: Services, name: str) -> str:
    """A service with the end of its log; without a name, what all of them do."""
    if name:
        return _described(_found(services, name))
    return "\n".join(_line(service) for service in services.all()) or "(no services)"


def _stop(services: Services, name: str) -> str:
    """End a service, and forget it."""
    try:
        _found(services, name)
        services.remove(name)
    except (NotReady, Closed):
        raise ToolError(f"{name} did not end in time; try again") from None
    return f"{name} is ended"


def _found(services: Services, name: str) -> Service:
    service = services.find(name)
    if service is None:
        raise ToolError(f"there is no service {name}; see show_services")
    return service


def _line(service: Service) -> str:
    definition = service.definition
    port = f", port {definition.port}" if definition.port else ""
    return f"{definition.name}: {service.state}{port}: {definition.command}"


def _described(service: Service) -> str:
    text, _ = service.piece(service.place_in_log(LOG_BYTES), LOG_BYTES, 0.0)
    return f"{_line(service)}\nThe end of its log:\n{text}"
