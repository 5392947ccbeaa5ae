"""What was done inside a workspace by calls: its commands, files, services and ports, and what each may have become."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.faults.chronicle import Brought, Deed

RAN = "ran"
"""The file in which each command writes its id, a line each time that it runs."""


@dataclass(eq=False)
class Command(Brought):
    """A command; `ends` are what was told of its end."""

    id: str
    body: dict[str, Any]
    ends: list[dict[str, Any]] = field(default_factory=list)


@dataclass(eq=False)
class Register:
    """What several clients set, one over another; None for nothing, as it is at the beginning."""

    changes: list[tuple[Deed, Any]] = field(default_factory=list)

    def set(self, deed: Deed, value: Any) -> None:
        self.changes.append((deed, value))

    def ever(self) -> list[Any]:
        """What it may have been set to at any time."""
        return [value for deed, value in list(self.changes) if deed.possible]

    def allowed(self, unsure: float = 0.0) -> list[Any] | None:
        """What it may be now: of calls that overlapped any may have been the last. None for anything, where until
        `unsure` it may have become anything, and was not set for certain since."""
        possible = [(deed, value) for deed, value in list(self.changes) if deed.possible]
        certain = [deed for deed, _ in possible if deed.accepted]
        last = [value for deed, value in possible if not any(other.begun > deed.latest for other in certain)]
        if any(deed.begun > unsure for deed in certain):
            return last
        return None if unsure else [None, *last]


@dataclass(frozen=True)
class Moved:
    """A file that was moved, or may have been."""

    source: str
    target: str
    crc: int
    deed: Deed


@dataclass(eq=False)
class Terminal:
    """What was typed into a terminal, whose program writes it to the file `name`: pieces in their order."""

    id: str
    name: str
    pieces: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Work:
    """All of it in one workspace, by id, path, name or number."""

    commands: dict[str, Command] = field(default_factory=dict)
    sent: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """The CRC-32s of all contents that a file was ever given by a call."""
    claims: dict[str, list[tuple[Deed, int]]] = field(default_factory=lambda: defaultdict(list))
    """Files of which each call is to write a new one only, with the CRC-32 of its content."""
    shared: dict[str, Register] = field(default_factory=lambda: defaultdict(Register))
    """Files that are written and deleted again and again: CRC-32s."""
    moved: list[Moved] = field(default_factory=list)
    terminals: list[Terminal] = field(default_factory=list)
    services: dict[str, Register] = field(default_factory=lambda: defaultdict(Register))
    """Their commands."""
    ports: dict[int, Register] = field(default_factory=lambda: defaultdict(Register))
    """Whether they are public."""

    def send(self, name: str, content: bytes) -> int:
        """Note that a call is about to write this; its CRC-32."""
        crc = zlib.crc32(content)
        self.sent[name].add(crc)
        return crc
