"""What a service is to be, checked: in a request, and in the document that keeps it, which the workspace's user may
have edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.agent.execs.order import BadOrder, size_of
from app.agent.protocol import SERVICE_NAME, Restart

PORTS = range(1, 65_536)

COMMAND_BYTES = 10_000
"""Of a command and its folder. The document of all services is read as a whole."""


@dataclass(frozen=True)
class Definition:
    """A named command of a shell, in a folder below the workspace's. `port` is where it listens, None for nowhere;
    `restart` when it is started again once it has ended by itself; with `autostart` it starts with the workspace."""

    name: str
    command: str
    cwd: str = "."
    port: int | None = None
    restart: Restart = Restart.ON_FAILURE
    autostart: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_definition(given: Mapping[str, Any]) -> Definition:
    """The definition in a request or in the document. Raises BadOrder."""
    name, command, cwd = given.get("name"), given.get("command"), given.get("cwd") or "."
    port, restart, autostart = given.get("port"), given.get("restart"), given.get("autostart") or False
    if not isinstance(name, str) or not SERVICE_NAME.fullmatch(name):
        raise BadOrder("`name` must be 1 to 32 characters of A-Z a-z 0-9 _ -, and begin with a letter or a digit")
    if not isinstance(command, str) or not command.strip() or not isinstance(cwd, str):
        raise BadOrder("`command` must be a text for the shell, and `cwd` a text")
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or port not in PORTS):
        raise BadOrder(f"`port` must be a number from {PORTS[0]} to {PORTS[-1]}")
    if restart is not None and (not isinstance(restart, str) or restart not in set(Restart)):
        raise BadOrder(f"`restart` must be one of {', '.join(Restart)}")
    if not isinstance(autostart, bool):
        raise BadOrder("`autostart` must be true or false")
    if size_of("`command` and `cwd`", (command, cwd)) > COMMAND_BYTES:
        raise BadOrder(f"`command` must have at most {COMMAND_BYTES:,} bytes; put the rest into a script")
    return Definition(name, command, cwd, port, Restart(restart or Restart.ON_FAILURE), autostart)
