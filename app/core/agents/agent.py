"""Where a session's agent listens."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.agent.protocol import AGENT_PORT
from app.core.errors import InvalidRequest
from app.process.settings import Settings

NAME_LENGTH = 128


@dataclass(frozen=True, kw_only=True)
class Agent:
    """Where a session's agent listens. `boot` is new with each of its processes. `at` is when it registered, `retry_at`
    when it may be tried again after a failure (seconds since the epoch). `epoch` is that of the session's record."""

    uuid: str
    address: str
    name: str = ""
    boot: str = ""
    at: float = 0.0
    retry_at: float = 0.0
    epoch: int = 0

    @classmethod
    def at_address(cls, uuid: str, address: str, settings: Settings, name: str = "", boot: str = "") -> Agent:
        """An agent at the address it reported. Raises `InvalidRequest` for an address that no workspace can have:
        otherwise a workspace could make the manager send requests inside the cluster on its behalf."""
        try:
            url = urlsplit(address)
            given, port = ipaddress.ip_address(url.hostname or ""), url.port
        except ValueError as error:
            raise InvalidRequest("An agent's address must be http://, an IP address, and a port.") from error
        host = getattr(given, "ipv4_mapped", None) or given
        more = url.path.strip("/") or url.query or url.fragment or "@" in url.netloc or getattr(given, "scope_id", None)
        if settings.runtime == "local":
            place, possible = "a loopback IP address, and a port", host.is_loopback and port is not None
        else:
            special = host.is_loopback or host.is_link_local or host.is_multicast or host.is_unspecified
            place = f"a pod's IP address, and the port {AGENT_PORT}"
            possible = not special and not host.is_global and port == AGENT_PORT
        if url.scheme != "http" or more or not possible:
            raise InvalidRequest(f"An agent's address must be http://, {place}, and nothing more.")
        literal = f"[{given}]" if given.version == 6 else str(given)
        return cls(uuid=uuid, address=f"http://{literal}:{port}", name=name[:NAME_LENGTH], boot=boot[:NAME_LENGTH])

    @classmethod
    def from_hash(cls, uuid: str, hashed: Mapping[str, str], epoch: int = 0) -> Agent | None:
        """The agent in a Redis hash, None when that has no address."""
        if "address" not in hashed:
            return None
        return cls(
            uuid=uuid,
            address=hashed["address"],
            name=hashed.get("name", ""),
            boot=hashed.get("boot", ""),
            at=float(hashed.get("at") or 0),
            retry_at=float(hashed.get("retry_at") or 0),
            epoch=epoch,
        )
