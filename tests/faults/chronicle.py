"""What was done to a service and when, so that what became of it can be judged, and told where it is wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

LATE = 8.0
"""s after which a call whose answer never came can't do anything any more: it may have waited in a frozen process."""


TROUBLE = "trouble"
"""Who does the faults."""


class Outcome(StrEnum):
    """Of a call: 2xx, refused for good, or nobody knows. Of a fault: it was put in, or there was nothing to break."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(eq=False)
class Deed:
    """A call or a fault. Times are seconds since the epoch. `about` is the message, backup or file it was about."""

    what: str
    who: str
    uuid: str = ""
    about: str = ""
    begun: float = 0.0
    ended: float = float("inf")
    outcome: Outcome = Outcome.UNKNOWN
    detail: str = ""
    arrived: bool = False
    """Whether it was refused by what it was about, and not before it got there."""

    @property
    def fault(self) -> bool:
        """Whether it hit the whole service."""
        return self.who == TROUBLE and not self.uuid

    @property
    def accepted(self) -> bool:
        return self.outcome is Outcome.ACCEPTED

    @property
    def possible(self) -> bool:
        """Whether it may have had an effect."""
        return self.outcome is not Outcome.REFUSED

    @property
    def latest(self) -> float:
        """Until when it can have had its effect."""
        return self.ended + (LATE if self.outcome is Outcome.UNKNOWN else 0.0)

    def overlaps(self, begin: float, end: float) -> bool:
        return self.possible and self.begun <= end and self.latest >= begin


@dataclass(eq=False)
class Brought:
    """What calls brought, one of which may repeat another."""

    brought: list[Deed] = field(default_factory=list, kw_only=True)

    @property
    def accepted(self) -> bool:
        return any(deed.accepted for deed in self.brought)

    @property
    def possible(self) -> bool:
        """Whether it may be there."""
        return any(deed.possible for deed in self.brought)

    @property
    def first(self) -> float:
        """When it may have been taken at the earliest."""
        return min(deed.begun for deed in self.brought)


class Chronicle:
    """All deeds of a run, in the order they began; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deeds: list[Deed] = []

    def begin(self, what: str, who: str, uuid: str = "", about: str = "") -> Deed:
        """Note a deed that is about to be done."""
        deed = Deed(what, who, uuid, about, begun=time.time())
        with self._lock:
            self._deeds.append(deed)
        return deed

    def end(self, deed: Deed, outcome: Outcome, detail: str = "") -> None:
        """Note what became of it."""
        deed.outcome, deed.detail, deed.ended = outcome, detail[:400], time.time()

    def deeds(self, *what: str, uuid: str = "") -> list[Deed]:
        """Those that had, or may have had, an effect, of these kinds (all without any), and of this session."""
        with self._lock:
            found = list(self._deeds)
        return [
            deed
            for deed in found
            if deed.possible and (not what or deed.what in what) and (not uuid or deed.uuid == uuid)
        ]

    def lines(self, uuid: str) -> list[tuple[float, str]]:
        """All deeds about a session as text, and all faults, with the time they began."""
        with self._lock:
            found = [deed for deed in self._deeds if uuid == deed.uuid or uuid in deed.about or deed.fault]
        return [(deed.begun, _line(deed)) for deed in found]

    def write(self, path: Path) -> None:
        """All of it, a JSON object a line."""
        with self._lock, path.open("w") as file:
            for deed in self._deeds:
                ended = deed.ended if deed.ended < float("inf") else None
                file.write(json.dumps({**vars(deed), "ended": ended}) + "\n")


def _line(deed: Deed) -> str:
    took = f"{deed.ended - deed.begun:.3f} s" if deed.ended < float("inf") else "no end"
    about = f" {deed.about}" if deed.about else ""
    return f"{deed.who}: {deed.what}{about} -> {deed.outcome} in {took} {deed.detail[:160]}"


def told(lines: Iterable[tuple[float, str]], since: float, most: int = 200) -> str:
    """These lines in the order of their times, from `since` on; the last `most` of them."""
    chosen = sorted(line for line in lines if line[0] >= since)[-most:]
    return "\n".join(f"    {datetime.fromtimestamp(at):%H:%M:%S.%f}  {text}" for at, text in chosen)
