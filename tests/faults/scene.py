"""What the fuzzer knows of its sessions: what was asked of each, by whom, and what that may have led to."""

from __future__ import annotations

import threading
import zlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.core.sessions.model import Status
from tests.faults.chronicle import Brought, Chronicle, Deed
from tests.faults.places import Place
from tests.faults.work import Work

UP, DOWN, GONE = "up", "down", "gone"

WORK = frozenset(
    {
        "run", "run again", "show run", "end run", "upload", "claim", "change", "unfile", "move", "fetch", "unpack",
        "pack", "serve", "unserve", "open port", "terminal",
    }
)  # fmt: skip
"""Calls that work in a workspace, and wake it for that."""

LEAVE_ASLEEP = frozenset({"run if awake", "type", "close port"})
"""Those that don't."""

MOVES = {
    "create": UP,
    "restore": UP,
    "fork": UP,
    "wake": UP,
    "scale-up": UP,
    "chat": UP,
    "sleep": DOWN,
    "scale-down": DOWN,
    "delete": GONE,
    "delete unsaved": GONE,
    **dict.fromkeys(WORK, UP),
}
"""What a call asks a session to become."""

MAYBE = {"chat again": UP, "visit": UP, "undo": UP}
"""What some calls ask for only if they find it otherwise: a prompt that is known, a page that is opened, a prompt that
is undone by its agent."""

BACK = ("rollback", "undo")
"""What takes files and prompts back."""

STOPS = ("stop", "die", "die with workspaces")
"""Ends of the whole service."""


@dataclass(eq=False)
class Prompt(Brought):
    """A prompt."""

    id: str
    text: str

    @property
    def taken(self) -> float:
        """When it was there for certain."""
        return min((deed.ended for deed in self.brought if deed.accepted), default=float("inf"))


@dataclass(eq=False)
class Written:
    """A file of the user's, or a folder of many. `files` are CRC-32s by name."""

    files: dict[str, int]
    deed: Deed

    @classmethod
    def of(cls, files: Mapping[str, bytes], deed: Deed) -> Written:
        return cls({name: zlib.crc32(content) for name, content in files.items()}, deed)


@dataclass(eq=False)
class Subject:
    """A session. `origin` is the backup it was restored from."""

    uuid: str
    user: str
    idle_timeout: float = 0.0
    ttl: float = 0.0
    origin: str = ""
    deeds: list[Deed] = field(default_factory=list)
    prompts: dict[str, Prompt] = field(default_factory=dict)
    written: list[Written] = field(default_factory=list)
    work: Work = field(default_factory=Work)
    tokens: list[tuple[str, Deed]] = field(default_factory=list)
    inherited: dict[str, int] = field(default_factory=dict)
    """Files that it has from the session it was forked from, as CRC-32s by name."""
    inherited_prompts: frozenset[str] = frozenset()
    """Prompts of that session, of the same user, some of which may be in its conversation and its files."""
    forked_before: str = ""
    """The one of these before which it was forked."""
    spoiled: bool = False
    """Something was found about it; nothing more is expected of it."""
    over: bool = False
    """It ended, and how was judged."""

    def possible(self, *what: str) -> list[Deed]:
        """What was done to it, or may have been, of these kinds."""
        return [deed for deed in list(self.deeds) if deed.possible and deed.what in what]

    def wanted(self) -> set[str]:
        """What it may be by what was asked last: of calls that overlapped any may have been the last, and of a call
        without an answer nobody knows whether it was one at all."""
        moves = [(deed, MOVES[deed.what]) for deed in self.possible(*MOVES)]
        certain = [deed for deed, _ in moves if deed.accepted]
        moves += [(deed, MAYBE[deed.what]) for deed in self.possible(*MAYBE)]
        # A call that its workspace refused has woken it.
        moves += [(deed, UP) for deed in list(self.deeds) if deed.what in WORK and deed.arrived]
        if any(deed.accepted for deed in self.possible("delete", "delete unsaved")):
            return {GONE}
        last = {state for deed, state in moves if not any(other.begun > deed.latest for other in certain)}
        return last | ({GONE} if self.ttl else set())

    def certain(self, before: float) -> dict[str, int]:
        """The files that were written before this moment, and that no rollback can have taken back."""
        settled = max((deed.latest for deed in self.possible(*BACK)), default=0.0)
        found: dict[str, int] = dict(self.inherited)
        for written in list(self.written):
            if written.deed.ended < before and written.deed.begun > settled:
                found |= written.files
        return found

    def unsure(self) -> float:
        """Until when it may have become what another session, or itself, was before; 0 for never."""
        return max((deed.latest for deed in self.possible("restore", "fork", *BACK)), default=0.0)

    def deletion(self) -> float:
        """When its deletion may have begun, infinite for never."""
        return min((deed.begun for deed in self.possible("delete", "delete unsaved")), default=float("inf"))


STATUSES = {UP: Status.ACTIVE, DOWN: Status.SLEEPING, GONE: Status.TERMINATED}


class Scene:
    """A place and the sessions on it: `slots` are those that are played with, None for one to be made."""

    def __init__(self, place: Place, slots: int) -> None:
        self.place = place
        self.chronicle = Chronicle()
        self.subjects: dict[str, Subject] = {}
        self.makings: dict[str, list[Deed]] = defaultdict(list)
        """The calls that make a session, by the mark it bears."""
        self.forkings: dict[str, list[Deed]] = defaultdict(list)
        """The calls that make one more session of a user, by that mark."""
        self.keyed: set[str] = set()
        """The marks of which all calls bore one Idempotency-Key."""
        self.backups: set[str] = set()
        """The names of all backups that were ever seen."""
        self.troubles: list[tuple[str, str, str]] = []
        """What was seen to be wrong at once: kind, session, text."""
        self._slots: list[Subject | None] = [None] * slots
        self._reserved: set[int] = set()
        self._lock = threading.Lock()
        self._numbers = 0

    def number(self) -> int:
        """One that was not used before."""
        with self._lock:
            self._numbers += 1
            return self._numbers

    def mark(self) -> str:
        """A user that was not used before."""
        return f"{self.place.prefix}u{self.number()}"

    def ours(self, backup: str) -> bool:
        """Whether this backup is not of others, who use the place too."""
        return not self.place.prefix or any(f"app-{uuid}-" in backup for uuid in list(self.subjects))

    @property
    def slots(self) -> int:
        return len(self._slots)

    def at(self, slot: int) -> Subject | None:
        with self._lock:
            return self._slots[slot]

    def reserve(self, slot: int) -> bool:
        """Let nobody else make a session for this slot; False where somebody does."""
        with self._lock:
            if slot in self._reserved or self._slots[slot] is not None:
                return False
            self._reserved.add(slot)
            return True

    def fill(self, slot: int, subject: Subject | None) -> None:
        """Put a new session there, or give up making one."""
        with self._lock:
            self._reserved.discard(slot)
            if subject is not None:
                self._slots[slot] = self.subjects[subject.uuid] = subject

    def leave(self, subject: Subject) -> None:
        """Play with it no more; it is judged all the same."""
        with self._lock:
            self._slots = [None if each is subject else each for each in self._slots]

    def judged(self) -> list[Subject]:
        """Those of which something is expected."""
        with self._lock:
            return [each for each in self.subjects.values() if not each.spoiled and not each.over]

    def trouble(self, kind: str, uuid: str, text: str) -> None:
        with self._lock:
            self.troubles.append((kind, uuid, text))

    def faults(self, begin: float, end: float, *what: str, uuid: str = "") -> list[Deed]:
        """Faults of these kinds in this time, which hit this session: those of its own, and of all."""
        found = self.chronicle.deeds(*what)
        return [deed for deed in found if deed.overlaps(begin, end) and deed.uuid in ("", uuid)]
