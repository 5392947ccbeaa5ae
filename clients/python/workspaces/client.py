"""The client: one service, by one API key."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx

from workspaces.config import load_config
from workspaces.errors import ConfigError
from workspaces.http import Http
from workspaces.resources.audit import AuditCalls
from workspaces.resources.backups import Backups
from workspaces.resources.costs import CostCalls
from workspaces.resources.dead_letters import DeadLetters
from workspaces.resources.execs import Execs
from workspaces.resources.feed import Feed
from workspaces.resources.files import Files
from workspaces.resources.messages import Messages
from workspaces.resources.ports import Ports
from workspaces.resources.recovery import Recovery
from workspaces.resources.restore_points import RestorePoints
from workspaces.resources.services import Services
from workspaces.resources.sessions import Sessions
from workspaces.resources.system import System
from workspaces.retries import Retries
from workspaces.workspace import Workspace

TIMEOUT: Final = 60.0
"""s for each step of a request: the service waits 25 s for an end state by default."""

RETRIES: Final = 3


class Workspaces:
    """A client of the Workspace Session Manager. Threads may share it; close it, or use it as a context manager.

    Without `api_url` and `api_key` it is configured as by `from_env`. One of them alone is a `ConfigError`: a key is
    never sent to a service that it was not meant for.

    `timeout` is in seconds, for each step of a request. `retries` is how often a request is repeated that failed for a
    passing reason, within a minute: what was not carried out, or can't be carried out twice. `transport` is one of
    httpx, for proxies, certificates and tests.
    """

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if api_url is None and api_key is None:
            found = load_config()
            api_url, api_key = found.api_url, found.api_key
        if api_url is None or api_key is None:
            raise ConfigError("Give both the API's URL and a key, or neither.")
        self._http = Http(api_url, api_key, timeout=timeout, retries=Retries(retries), transport=transport)
        self.sessions = Sessions(self._http)
        self.feed = Feed(self._http)
        self.messages = Messages(self._http)
        self.execs = Execs(self._http)
        self.files = Files(self._http)
        self.services = Services(self._http)
        self.ports = Ports(self._http)
        self.backups = Backups(self._http)
        self.restore_points = RestorePoints(self._http)
        self.costs = CostCalls(self._http)
        self.audit = AuditCalls(self._http)
        self.dead_letters = DeadLetters(self._http)
        self.recovery = Recovery(self._http)
        self.system = System(self._http)

    @classmethod
    def from_env(cls, config: Path | str | None = None, **options: Any) -> Workspaces:
        """A client by API_URL and API_KEY; what is not set there is in a file, the one that `config` or
        WORKSPACES_CONFIG names, else ~/.config/workspaces/config.toml. Raises `ConfigError`."""
        found = load_config(config)
        return cls(found.api_url, found.api_key, **options)

    def create(self, user_id: str, **options: Any) -> Workspace:
        """Create a session as `sessions.create` does, and answer its workspace."""
        return self.workspace(self.sessions.create(user_id, **options).uuid)

    def workspace(self, uuid: str) -> Workspace:
        """The workspace of a session; asks the service for nothing."""
        return Workspace(uuid, self.sessions, self.execs, self.files, self.services, self.ports)

    @property
    def api_url(self) -> str:
        """Where the service is."""
        return self._http.url

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Workspaces:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Workspaces({self.api_url!r})"


Client = Workspaces
"""A shorter name."""
