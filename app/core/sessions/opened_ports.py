"""The opened ports of a session, as a record holds them: `3000:1730000000:1730086400,5173:1730000100:`.

A port is opened by a caller or by somebody who may open the workspace. Only an opened port is shown at its address; an
access token for it counts if it was issued since.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PORT_REGEX = "[1-9][0-9]{0,4}"
"""How a port is written in an address; some numbers of that form are above the last port."""

LAST_PORT = 65_535


@dataclass(frozen=True)
class OpenedPort:
    """A port, since when it is opened, and until when anybody may see it, 0 for never; whole seconds since the
    epoch."""

    port: int
    opened_at: int
    public_until: int = 0

    def is_public(self, now: float) -> bool:
        return now < self.public_until

    def was_public(self, now: float) -> bool:
        return 0 < self.public_until <= now


def port_named(text: str) -> int:
    """The port that a text names, 0 if it names none."""
    return int(text) if re.fullmatch(PORT_REGEX, text) and int(text) <= LAST_PORT else 0


def find(ports: Iterable[OpenedPort], port: int) -> OpenedPort | None:
    """The opened port of this number, None if it is not opened."""
    return next((each for each in ports if each.port == port), None)


def to_text(ports: Iterable[OpenedPort]) -> str:
    """The text in the record's hash, "" for none."""
    return ",".join(f"{each.port}:{each.opened_at}:{each.public_until or ''}" for each in ports)


def from_text(text: str) -> tuple[OpenedPort, ...]:
    """The opened ports in a text of that form."""
    parts = [each.split(":") for each in text.split(",") if each]
    return tuple(OpenedPort(int(port), int(opened), int(until or 0)) for port, opened, until in parts)
