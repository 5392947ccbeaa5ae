"""What a session is, and which states it may move between.

Nothing here does I/O or reads a clock: times are arguments, in seconds since the epoch.
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from app.agent.protocol import ServiceState
from app.core.redis.use_fields import well_formed
from app.core.sessions import opened_ports, reported_services
from app.core.sessions.opened_ports import OpenedPort
from app.core.sessions.reported_services import ReportedService
from app.core.signal_kinds import SIGNAL_PREFIX, SIGNALS

UUID_LENGTH = 8
UUID_ALPHABET = string.digits + string.ascii_lowercase
UUID_PATTERN = re.compile(r"[0-9a-z]{8}")
USER_ID_PATTERN = re.compile(r"[A-Za-z0-9@._+:|-]{1,128}")
USER_ID_RULE = "1 to 128 of A-Z a-z 0-9 @ . _ + : | -"
SIZES = ("small", "standard", "large")


class Tier(StrEnum):
    """Where a session's files are: on its volume, or in the store of restore points only. `parked` is reserved."""

    HOT = "hot"
    ARCHIVED = "archived"


class Status(StrEnum):
    """The states of a session. `sleeping` is set when a sleep is requested; `replicas` shows whether processes
    remain."""

    CREATED = "created"
    ACTIVE = "active"
    SLEEPING = "sleeping"
    WAKING = "waking"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FAILED = "failed"


TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.CREATED: frozenset({Status.ACTIVE, Status.SLEEPING, Status.FAILED, Status.TERMINATING}),
    Status.ACTIVE: frozenset({Status.SLEEPING, Status.WAKING, Status.FAILED, Status.TERMINATING}),
    Status.SLEEPING: frozenset({Status.WAKING, Status.FAILED, Status.TERMINATING}),
    Status.WAKING: frozenset({Status.ACTIVE, Status.SLEEPING, Status.FAILED, Status.TERMINATING}),
    Status.FAILED: frozenset({Status.WAKING, Status.ACTIVE, Status.TERMINATING}),
    Status.TERMINATING: frozenset({Status.TERMINATED, Status.FAILED, Status.TERMINATING}),
    Status.TERMINATED: frozenset(),
}
"""From a state to the states it may move to; any other move is refused. An active session whose processes ended
unexpectedly is waking again; a new deletion that demands less of the backup replaces the one under way."""

UP = frozenset({Status.CREATED, Status.WAKING, Status.ACTIVE})
"""The states in which the workspace's processes should be running."""

PHASES = ("enqueued", "scheduled", "volume", "image", "started", "ready")
"""The steps of a start, in order: a worker took the task; the pod has a node; its volumes are mounted and its sandbox
exists; the image is present; the container's process runs; the editor answers. A runtime reports those it has."""

GONE = frozenset({Status.TERMINATING, Status.TERMINATED})
"""The states that only a failed teardown leads out of."""


def sources(target: Status) -> frozenset[Status]:
    """The states that may move to `target`."""
    return frozenset(status for status, targets in TRANSITIONS.items() if target in targets)


def phases_since(known: Mapping[str, int], seen: Mapping[str, float], requested_at: float) -> dict[str, int]:
    """The phases of a start in ms since its request: those `known`, and those `seen` (seconds since the epoch).

    No phase ends before the one preceding it: clocks differ, and a pod may be older than the request. Known phases stay
    as they are.
    """
    phases: dict[str, int] = {}
    reached = 0
    for name in PHASES:
        if name in known:
            phases[name] = known[name]
        elif name in seen:
            phases[name] = max(reached, round((seen[name] - requested_at) * 1000))
        reached = max(reached, phases.get(name, 0))
    return phases


def new_uuid() -> str:
    """An unguessable uuid: 8 of `[0-9a-z]`, 41 bits."""
    return "".join(secrets.choice(UUID_ALPHABET) for _ in range(UUID_LENGTH))


def number(value: float) -> str:
    """A time as records hold it; a change that expects one compares texts."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def iso(seconds: float | None) -> str | None:
    """A time as `instant` writes it; None for 0, which records have for none."""
    return instant(seconds) if seconds else None


def instant(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with `Z`, to the millisecond."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


@dataclass(frozen=True)
class Signal:
    """An activity signal: when it was last seen, until when it holds (for those that say so), and a text for people.
    Times are seconds since the epoch, 0 for none."""

    at: float
    until: float = 0.0
    detail: str = ""

    def to_text(self) -> str:
        """The text in the record's hash. Equal signals have equal texts, so that a change can expect one."""
        if not self.until and not self.detail:
            return number(self.at)
        return f"{number(self.at)} {number(self.until)} {self.detail}".rstrip()

    @classmethod
    def from_text(cls, text: str) -> Signal:
        at, until, detail = (text.split(" ", 2) + ["", ""])[:3]
        return cls(float(at), float(until or 0), detail)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The part of a session that must survive the loss of Redis; the runtime keeps a copy beside the volume."""

    uuid: str
    """the session's name"""
    user_id: str
    """whose it is"""
    created_at: float
    """when it was created"""
    size: str = "standard"
    """one of `SIZES`"""
    idle_timeout: float = 0.0
    """s without use until it sleeps, 0 for never"""
    ttl: float = 0.0
    """s without use until it is archived, 0 for never"""
    labels: Mapping[str, str] = field(default_factory=dict)
    """the caller's, for lists, the feed and costs"""
    restore_from: str = ""
    """the backup, or the restore point, that is still to be restored; empty once all its files are in place; until then
    it can't be deleted"""
    volume: int = 0
    """how many volumes were out of reach and were replaced: in a cluster each has a claim of its own"""
    rollbacks: int = 0
    """how many rollbacks there were: each restores anew, also from the same point"""

    @property
    def restore_mark(self) -> str:
        """What a volume notes of a restore that is done, so that a repeated task does not undo later work."""
        return f"{self.restore_from} {self.rollbacks}" if self.restore_from and self.rollbacks else self.restore_from


@dataclass(frozen=True, kw_only=True)
class Record(Identity):
    """A session as Redis holds it (hash `session:{uuid}`). Times are seconds since the epoch, 0 for none.

    `python -m scripts.generate` writes the table of docs/state.md from these fields and those of `Identity`.
    """

    status: Status
    """its state"""
    reason: str = ""
    """for people: why it failed, what its start waits for, or, while it is active, why its agent does not run"""
    reason_code: str = ""
    """the same for programs, where there is one (`app/core/sessions/reason_codes.py`)"""
    generation: int = 1
    """counts intents; grows with every wake, sleep and delete that changes something"""
    settled: int = 0
    """the last generation that was carried out; below `generation` there is work to do"""
    task: str = ""
    """the task that carries out the current intent, so that a sweep can enqueue it again"""
    stopping: bool = False
    """its processes were told to stop and may still run: nothing may be started before they have ended"""
    provisioned: bool = False
    """whether its folder or volume was ever made, and so there are files to back up"""
    request_id: str = ""
    """the request behind the current intent"""
    traceparent: str = ""
    """the trace of that request"""
    requested_at: float = 0.0
    """when that intent was made"""
    started_at: float = 0.0
    """when the runtime had started its processes; 0 while the current start has not come so far"""
    last_activity: float = 0.0
    """the last use of any kind; the time to live counts from it"""
    replicas: int = 0
    """1 while its processes run, else 0"""
    pod_name: str = ""
    """the name of its pod, in a cluster"""
    delete_backup: bool = True
    """whether the teardown must back up first"""
    delete_partial: bool = False
    """whether a backup without the unreadable files will do"""
    delete_erase: bool = False
    """whether nothing is to be left (`app/core/erasures.py`)"""
    backup: str = ""
    """the last backup of a teardown"""
    backup_lacks: Mapping[str, Any] = field(default_factory=dict)
    """some of the unreadable files that are missing from it (`unreadable`)"""
    backup_generation: int = 0
    """the intent that `backup` was made for"""
    tries: int = 0
    """attempts at the current intent that did not come to their end"""
    lease: int = 0
    """attempts at all intents: a worker that lost its lease finds another number"""
    ready_seen: int = 0
    """the intent whose workspace was ready before its start was complete"""
    backup_asked: int = 0
    """requests for a backup so far: an attempt that began before the last request does not settle it"""
    backup_ended: int = 0
    """the last request for a backup that was carried out, or failed"""
    backup_error: str = ""
    """why it failed"""
    backup_tries: int = 0
    """attempts at the current request that did not come to their end"""
    point: str = ""
    """the newest restore point"""
    point_at: float = 0.0
    """of when the files in it are, 0 if unknown"""
    point_error: str = ""
    """why no newer one was made"""
    point_checked_at: float = 0.0
    """when all stored data was last read back"""
    point_asked: int = 0
    """requests for a restore point, counted as those for a backup"""
    point_tries: int = 0
    """attempts at the current request that did not come to their end"""
    point_trigger: str = ""
    """who asked for it"""
    last_proven: float = 0.0
    """when a drill last restored the newest restore point whole"""
    drill_tries: int = 0
    """attempts at the current drill that did not come to their end"""
    left_fingerprint: str = ""
    """the agent's fingerprint of the files at the last stop"""
    files_of: float = 0.0
    """of when the files are that replaced those of a lost volume"""
    rollback_to: str = ""
    """the restore point that it is being rolled back to"""
    rollback_at: float = 0.0
    """when that was asked for"""
    rolled_back: Mapping[str, Any] = field(default_factory=dict)
    """how the last rollback ended (`workers/lifecycle/rolling_back.py`)"""
    restoring: Mapping[str, Any] = field(default_factory=dict)
    """what the restore brings that was begun last and is not done: `files`, `bytes`, and `of` when they are
    (`workers/lifecycle/to_restore.py`)"""
    archived_at: float = 0.0
    """since when its files are in the archive only, from where `restore_from` brings them back; 0 while there is a
    volume"""
    waiting: int = 0
    """prompts that are not yet delivered, as the inbox counts them"""
    unfinished: int = 0
    """prompts that are with the agent, as the inbox counts them"""
    access_epoch: int = 0
    """counts revocations; cookies, links and session tokens of an earlier epoch are refused"""
    opened_ports: tuple[OpenedPort, ...] = ()
    """its ports that are opened, in the order of their opening (`app/core/sessions/opened_ports.py`)"""
    replaced_epoch: int = 0
    """the access epoch for which the workspace was last replaced: nothing runs in it that is older"""
    epoch: int = 1
    """the life of the workspace for which its workspace token is valid; grows when its processes have ended, and with a
    revoke (`app/core/access/agent_credentials.py`)"""
    awake_since: float = 0.0
    """when it last came up"""
    warned: float = 0.0
    """the time of the announced sleep"""
    expiry_tries: int = 0
    """failed deletions by age since its last use; each makes the wait for the next longer"""
    unsaved_work: Mapping[str, Any] = field(default_factory=dict)
    """what was unsaved when it was last stopped (`app/core/sessions/unsaved_work.py`)"""
    disk_used_mib: int = 0
    """the used part of its volume, as its agent last reported it"""
    services: tuple[ReportedService, ...] = ()
    """its services, as its agent last reported them (`app/core/sessions/reported_services.py`)"""
    unarchived: Mapping[str, Any] = field(default_factory=dict)
    """`since` when, and for which `reason`, the stored conversation is behind the agent's; normally empty"""
    made_by: str = ""
    """the API key that created it"""
    compute_since: float = 0.0
    """for the ledger, as the next five: since when its processes run, 0 when they don't; only a change's `Intervals`
    set these (`app/core/redis/lua/ledger.lua`)"""
    compute_until: float = 0.0
    """when its processes last ended"""
    disk_since: float = 0.0
    """since when its volume exists"""
    disk_mib: int = 0
    """the size of that volume"""
    points_since: float = 0.0
    """since when its restore points keep so much in the store"""
    points_kib: int = 0
    """how much they keep there"""
    phases: Mapping[str, int] = field(default_factory=dict)
    """`phase_{name}`: when a phase of the last start was done, in ms since its request, in the order of `PHASES`"""
    signals: Mapping[str, Signal] = field(default_factory=dict)
    """`signal_{name}`: when that kind of use was last seen"""

    @property
    def identity(self) -> Identity:
        return Identity(**{f.name: getattr(self, f.name) for f in fields(Identity)})

    @property
    def tier(self) -> Tier:
        """Where its files are."""
        return Tier.ARCHIVED if self.archived_at else Tier.HOT

    @property
    def brings(self) -> Mapping[str, Any]:
        """What the restore brings that is under way, as `restoring`; {} if none is, or nothing is known of it."""
        return self.restoring if self.restore_from and self.settled < self.generation else {}

    @property
    def present_services(self) -> tuple[ReportedService, ...]:
        """Its services, as far as is known: none of them runs while it is not active."""
        if self.status is Status.ACTIVE:
            return self.services
        return tuple(replace(each, state=ServiceState.STOPPED) for each in self.services)

    @property
    def archives_at(self) -> float:
        """When the session is archived at the earliest, 0 for never: `ttl` after its last use, if all of that time
        counts (app/core/sessions/counted_time.py). Needs restore points."""
        return self.last_activity + self.ttl if self.ttl and not self.archived_at else 0.0

    def expires_at(self, retention: float) -> float:
        """When the session ends at the earliest, 0 for never, with this `ARCHIVE_RETENTION`."""
        unused = longest_unused(self.ttl, retention)
        return self.last_activity + unused if unused else 0.0

    def to_hash(self) -> dict[str, str]:
        """The Redis hash; fields at their default are left out, which keeps a sleeping session small."""
        hashed = {PHASE_PREFIX + name: str(ms) for name, ms in self.phases.items()}
        hashed |= {SIGNAL_PREFIX + name: signal.to_text() for name, signal in self.signals.items()}
        texts = encode({name: getattr(self, name) for name in CODECS})
        return hashed | {name: text for name, text in texts.items() if text != DEFAULTS.get(name)}

    @classmethod
    def from_hash(cls, hashed: Mapping[str, str], noted: Mapping[str, str] | None = None) -> Record:
        """The record in a Redis hash. Unknown fields are ignored, so that an older release can read it. `noted` is the
        hash of its use, whose fields are newer."""
        hashed = {**hashed, **{name: text for name, text in (noted or {}).items() if well_formed(name, text)}}
        values = {name: read(hashed[name]) for name, (read, _) in CODECS.items() if name in hashed}
        phases = {name: int(hashed[PHASE_PREFIX + name]) for name in PHASES if PHASE_PREFIX + name in hashed}
        signals = {
            name: Signal.from_text(hashed[SIGNAL_PREFIX + name]) for name in SIGNALS if SIGNAL_PREFIX + name in hashed
        }
        return cls(**values, phases=phases, signals=signals)


def longest_unused(ttl: float, retention: float) -> float:
    """s that a session may be unused until it ends, 0 for no end: `ARCHIVE_RETENTION`, or its `ttl` if that is longer.
    One with the `ttl` 0 was promised to have no end."""
    return max(ttl, retention) if ttl and retention else 0.0


PHASE_PREFIX = "phase_"

Codec = tuple[Callable[[str], Any], Callable[[Any], str]]
_TEXT: Codec = (str, str)
_NUMBER: Codec = (float, number)
_COUNT: Codec = (int, str)
_FLAG: Codec = (lambda text: text == "1", lambda value: "1" if value else "0")
_OBJECT: Codec = (json.loads, lambda value: json.dumps(dict(value), sort_keys=True))
_STATUS: Codec = (Status, str)
_SERVICES: Codec = (reported_services.from_text, reported_services.to_text)
_PORTS: Codec = (opened_ports.from_text, opened_ports.to_text)

_BY_TYPE: Mapping[str, Codec] = {
    "str": _TEXT,
    "float": _NUMBER,
    "int": _COUNT,
    "bool": _FLAG,
    "Mapping[str, str]": _OBJECT,
    "Mapping[str, Any]": _OBJECT,
    "Status": _STATUS,
    "tuple[ReportedService, ...]": _SERVICES,
    "tuple[OpenedPort, ...]": _PORTS,
}
CODECS: Mapping[str, Codec] = {
    each.name: _BY_TYPE[str(each.type)] for each in fields(Record) if each.name not in ("phases", "signals")
}
"""How each field is read from and written to the Redis hash; `phases` and `signals` have several fields there."""

DEFAULTS: Mapping[str, str] = {
    name: CODECS[name][1](value)
    for name, value in vars(Record(uuid="", user_id="", created_at=0, status=Status.CREATED)).items()
    if name in CODECS and name not in {"uuid", "user_id", "created_at", "status", "generation", "epoch"}
}
"""The texts of the defaults, which a hash leaves out."""


def encode(values: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a record as the names and texts of its Redis hash."""
    return {name: CODECS[name][1](value) for name, value in values.items()}
