"""What a session is, and which states it may move between.

Nothing here does I/O or reads a clock: times are arguments, in seconds since the epoch.
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from app.core.redis.use_fields import well_formed
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
    """Seconds since the epoch as ISO 8601 in UTC with `Z`, to the millisecond."""
    if not seconds:
        return None
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
    """The part of a session that must survive the loss of Redis; the runtime keeps a copy beside the volume.

    `idle_timeout` and `ttl` are in seconds, 0 for never. `restore_from` names the backup, or the restore
    point, the session starts with, until all its files are restored. `volume` counts the volumes that were out of reach
    and were replaced: in a cluster each has a claim of its own. `rollbacks` counts the session's rollbacks: each
    restores anew, also from the same point.
    """

    uuid: str
    user_id: str
    created_at: float
    size: str = "standard"
    idle_timeout: float = 0.0
    ttl: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    restore_from: str = ""
    volume: int = 0
    rollbacks: int = 0

    @property
    def restore_mark(self) -> str:
        """What a volume notes of a restore that is done, so that a repeated task does not undo later work."""
        return f"{self.restore_from} {self.rollbacks}" if self.restore_from and self.rollbacks else self.restore_from


@dataclass(frozen=True, kw_only=True)
class Record(Identity):
    """A session as Redis holds it (hash `session:{uuid}`). Times are seconds since the epoch, 0 for none.

    `backup` is the last backup, `backup_lacks` names some unreadable files missing from it (`unreadable`). `reason` is
    why the session failed, what its start waits for, or, while it is active, why its agent does not run; `reason_code`
    is the same for programs, where there is one (app/core/sessions/reason_codes.py). `generation` counts intents;
    `settled` is the last generation carried out; `task` carries out the current intent; `provisioned` says whether its
    volume ever existed. `request_id` and `traceparent` are of the request behind the current intent. `phases` are
    milliseconds since the request that started the workspace, in the order of `PHASES`. `delete_backup` says whether
    the teardown must back up first, `delete_partial` whether a backup without the unreadable files will do,
    `delete_erase` whether nothing is to be left (app/core/erasures.py). `waiting` counts the prompts not yet delivered,
    `unfinished` those with the agent; the inbox keeps both. `access_epoch` counts revocations: an access token of an
    earlier epoch is invalid; `replaced_epoch` is the one for which the workspace was last replaced, as it did not
    confirm that older connections had ended. `epoch` is that of the workspace token: one of another epoch is invalid
    (app/core/access/agent_credentials.py). `signals` are by name; `awake_since` is when it last woke, `warned` the time
    of the announced sleep, `risk` the unsaved work when it was last stopped (app/core/sessions/unsaved_work.py).
    `expiry_tries` counts deletions for age since it was last used. `disk_used_mib` is the used part of its volume, as
    its agent last reported it (app/core/sessions/resources.py). `unarchived` is empty unless the agent's conversation
    is newer than the stored one: `since` when, and the `reason`.

    `tries` counts the unfinished attempts at the current intent, `backup_tries` those at a requested backup. `lease`
    counts the attempts at all intents: a worker that lost its lease finds another number. `ready_seen` is the intent
    whose workspace was ready before its start was finished.
    `backup_asked` counts requests for a backup: an attempt begun before the last request does not settle it.
    `backup_ended` is the last request that was carried out or failed, `backup_error` why it failed. `stopping` says
    that the processes were told to stop and may still run: nothing may be started before they have ended.

    `point` is the newest restore point, `point_at` the time whose files are in it (0 if unknown), `point_error` why the
    last attempt failed, `point_checked_at` when all stored data was last read. `point_asked` and `point_tries` count as
    those of backups, `point_trigger` is who asked. `last_proven` is when a drill last found the newest point whole,
    `drill_tries` counts its unfinished attempts. `left_fingerprint` is the agent's, of the files at the last stop.
    `files_of` is of when the files are that replaced those of a lost volume. `archived_at` is since when the files are
    in the archive only, from where `restore_from` brings them back, 0 while there is a volume.

    `rollback_to` is the restore point that the session is being rolled back to, as asked for at `rollback_at`;
    `rolled_back` is how the last rollback ended (workers/lifecycle/rolling_back.py). `restoring` is what the restore
    brings that was begun last, and is not done: its `files`, `bytes`, and `of` when they are
    (workers/lifecycle/to_restore.py).

    For the cost ledger: `made_by` names the API key that created the session. `compute_since` is since when its
    processes run, 0 when they don't, `compute_until` when they last ended; `disk_since` is since when its volume of
    `disk_mib` exists, `points_since` since when its restore points keep `points_kib` in the store. Only a change's
    `Intervals` set these (app/core/redis/lua/ledger.lua).
    """

    status: Status
    reason: str = ""
    reason_code: str = ""
    generation: int = 1
    settled: int = 0
    task: str = ""
    stopping: bool = False
    provisioned: bool = False
    request_id: str = ""
    traceparent: str = ""
    requested_at: float = 0.0
    started_at: float = 0.0
    last_activity: float = 0.0
    replicas: int = 0
    pod_name: str = ""
    delete_backup: bool = True
    delete_partial: bool = False
    delete_erase: bool = False
    backup: str = ""
    backup_lacks: Mapping[str, Any] = field(default_factory=dict)
    backup_generation: int = 0
    tries: int = 0
    lease: int = 0
    ready_seen: int = 0
    backup_asked: int = 0
    backup_ended: int = 0
    backup_error: str = ""
    backup_tries: int = 0
    point: str = ""
    point_at: float = 0.0
    point_error: str = ""
    point_checked_at: float = 0.0
    point_asked: int = 0
    point_tries: int = 0
    point_trigger: str = ""
    last_proven: float = 0.0
    drill_tries: int = 0
    left_fingerprint: str = ""
    files_of: float = 0.0
    rollback_to: str = ""
    rollback_at: float = 0.0
    rolled_back: Mapping[str, Any] = field(default_factory=dict)
    restoring: Mapping[str, Any] = field(default_factory=dict)
    archived_at: float = 0.0
    waiting: int = 0
    unfinished: int = 0
    access_epoch: int = 0
    replaced_epoch: int = 0
    epoch: int = 1
    awake_since: float = 0.0
    warned: float = 0.0
    expiry_tries: int = 0
    risk: Mapping[str, Any] = field(default_factory=dict)
    disk_used_mib: int = 0
    unarchived: Mapping[str, Any] = field(default_factory=dict)
    made_by: str = ""
    compute_since: float = 0.0
    compute_until: float = 0.0
    disk_since: float = 0.0
    disk_mib: int = 0
    points_since: float = 0.0
    points_kib: int = 0
    phases: Mapping[str, int] = field(default_factory=dict)
    signals: Mapping[str, Signal] = field(default_factory=dict)

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

_BY_TYPE: Mapping[str, Codec] = {
    "str": _TEXT,
    "float": _NUMBER,
    "int": _COUNT,
    "bool": _FLAG,
    "Mapping[str, str]": _OBJECT,
    "Mapping[str, Any]": _OBJECT,
    "Status": _STATUS,
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
