"""What an agent last reported of its workspace's services, as a record holds it: `web:3000:running,worker::stopped`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.agent.protocol import ServiceState


@dataclass(frozen=True)
class ReportedService:
    """A service: the port where it listens, None for none, and what it does."""

    name: str
    port: int | None
    state: ServiceState


def to_text(services: Sequence[ReportedService]) -> str:
    """The text in the record's hash, "" for none."""
    return ",".join(f"{each.name}:{each.port or ''}:{each.state}" for each in services)


def from_text(text: str) -> tuple[ReportedService, ...]:
    """The services in a text of that form."""
    parts = [each.split(":") for each in text.split(",") if each]
    return tuple(ReportedService(name, int(port) if port else None, ServiceState(state)) for name, port, state in parts)
