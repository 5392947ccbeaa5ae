"""What a session is, and which states it may move between.

Nothing here does I/O or looks at a clock: the time is an argument, in seconds since the epoch.
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

UUID_LENGTH = 8
UUID_ALPHABET = string.digits + string.ascii_lowercase
UUID_PATTERN = re.compile(r"[0-9a-z]{8}")
USER_ID_PATTERN = re.compile(r"[A-Za-z0-9@._+-]{1,128}")
SIZES = ("small", "standard", "large")


class Status(StrEnum):
    """The states of a session. `sleeping` is said as soon as sleep is asked for; `replicas` tells
    whether the processes are gone yet."""

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
"""From a state to the states it may move to; any other move is refused. An active session whose processes went
without anyone's wish is waking again; a deletion asked for anew, with less of a backup, replaces the one under way."""

UP = frozenset({Status.CREATED, Status.WAKING, Status.ACTIVE})
"""The states in which the workspace's processes should be running."""

PHASES = ("enqueued", "scheduled", "volume", "image", "started", "ready")
"""The steps of a start, in their order: a worker took the task; the pod has a node; its volumes are mounted and its
sandbox is there; the image is there; the container's process runs; the editor answers. A runtime tells those it has."""

GONE = frozenset({Status.TERMINATING, Status.TERMINATED})
"""The states nothing but a failed teardown leads out of."""


def sources(target: Status) -> frozenset[Status]:
    """The states from which `target` may be reached."""
    return frozenset(status for status, targets in TRANSITIONS.items() if target in targets)


def phases_since(known: Mapping[str, int], seen: Mapping[str, float], requested_at: float) -> dict[str, int]:
    """The phases of a start in ms since its request: those `known`, and those `seen` (seconds since the epoch).

    Never one earlier than the one before it: clocks differ, and a pod may have been there before the
    request. What is known stays as it is.
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
    """An unguessable session name: 8 of `[0-9a-z]`, 41 bits."""
    return "".join(secrets.choice(UUID_ALPHABET) for _ in range(UUID_LENGTH))


def iso(seconds: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC with `Z`, to the millisecond."""
    if not seconds:
        return None
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


@dataclass(frozen=True)
class Signal:
    """A sign that a session is in use: when it was last seen, how long it holds for those that say so themselves,
    and a word about it for people. Times are seconds since the epoch, 0 for none."""

    at: float
    until: float = 0.0
    detail: str = ""

    def to_text(self) -> str:
        """As the record's hash holds it; the same signal is always the same text, which a change may expect."""
        write = _NUMBER[1]
        if not self.until and not self.detail:
            return write(self.at)
        return f"{write(self.at)} {write(self.until)} {self.detail}".rstrip()

    @classmethod
    def from_text(cls, text: str) -> Signal:
        at, until, detail = (text.split(" ", 2) + ["", ""])[:3]
        return cls(float(at), float(until or 0), detail)


SIGNALS = ("prompt", "turn", "browser", "editor", "terminal", "jobs", "keepalive", "window")
"""A prompt or a wake; the agent at work; a person's request of the workspace's host; something done in the editor;
input to a terminal; a terminal's processes using CPU; a call to keep it up; hours in which it is kept up."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What of a session must outlive the loss of Redis; the runtime keeps a copy beside the volume.

    `idle_timeout` and `ttl` are seconds, 0 for never; `restore_from` names the backup whose files
    the session starts with, and stays set until they are all in place.
    """

    uuid: str
    user_id: str
    created_at: float
    size: str = "standard"
    idle_timeout: float = 0.0
    ttl: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    restore_from: str = ""


@dataclass(frozen=True, kw_only=True)
class Record(Identity):
    """A session as Redis holds it (hash `session:{uuid}`). Times are seconds since the epoch, 0 for none.

    `backup` is its last one, `backup_lacks` names some files that can't be read and are missing there (`unreadable`).
    `reason` is why it failed, what its start waits for, or, while it is active, why its agent doesn't run;
    `reason_code` is the same for programs, where there is one (app/sessions/errors.py, and `no_capacity`).
    `generation` counts intents; `settled` is the last generation that was carried out;
    `task` is the one that carries out the current intent; `provisioned` whether its volume was ever
    there. `phases` are milliseconds since the request that started the workspace, in the order of `PHASES`.
    `delete_backup` says whether teardown must back up first, `delete_partial` whether a backup without the files that
    can't be read will do. `waiting` counts the prompts that the agent has not
    been given yet, `unfinished` those it has and has not finished; the inbox keeps both. `door` counts how often
    all passes to the workspace were taken back: one for an earlier door opens nothing; `locked_door` is the one up to
    which the connections made with them were ended. `epoch` counts the lives of its token: one that names another is
    good for nothing (app/sessions/secrets.py); 0 is a session of an earlier release. `signals` are those seen,
    by name; `awake_since` is when it last came up, `warned` the moment of a sleep that was announced, `risk` what was
    at risk when it was last stopped (app/sessions/risk.py). `expiry_tries` counts how often it was to be deleted for
    its age since it was last used. `unarchived` is empty, unless there is something newer than the kept conversation:
    `since` when it could not be stored, and the `reason`.

    `tries` counts the attempts at the present intent that did not come to an end by themselves, `backup_tries` those
    at a requested backup. `lease` counts the attempts at all intents: a worker whose lease went to another one finds
    another number there. `missed` is the intent whose message found the lease taken, `answered` the one whose
    workspace was ready before its start had come to its end. `backup_asked` counts requests for a backup: one that was
    begun before the last of them does not settle it. `stopping` says that the processes were told to stop and that
    nobody has seen the last of them end: nothing may be started before.
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
    requested_at: float = 0.0
    started_at: float = 0.0
    last_activity: float = 0.0
    replicas: int = 0
    pod_name: str = ""
    delete_backup: bool = True
    delete_partial: bool = False
    backup: str = ""
    backup_lacks: Mapping[str, Any] = field(default_factory=dict)
    backup_generation: int = 0
    tries: int = 0
    lease: int = 0
    missed: int = 0
    answered: int = 0
    backup_asked: int = 0
    backup_tries: int = 0
    waiting: int = 0
    unfinished: int = 0
    door: int = 0
    locked_door: int = 0
    epoch: int = 0
    awake_since: float = 0.0
    warned: float = 0.0
    expiry_tries: int = 0
    risk: Mapping[str, Any] = field(default_factory=dict)
    unarchived: Mapping[str, Any] = field(default_factory=dict)
    phases: Mapping[str, int] = field(default_factory=dict)
    signals: Mapping[str, Signal] = field(default_factory=dict)

    @property
    def identity(self) -> Identity:
        return Identity(**{f.name: getattr(self, f.name) for f in fields(Identity)})

    @property
    def expires_at(self) -> float:
        """When the session expires at the earliest, 0 for never: `ttl` after it was last used, if all of that
        counts (app/sessions/clock.py)."""
        return self.last_activity + self.ttl if self.ttl else 0.0

    def to_hash(self) -> dict[str, str]:
        """The Redis hash; fields at their default are left out, which keeps a sleeping session small."""
        hashed = {PHASE_PREFIX + name: str(ms) for name, ms in self.phases.items()}
        hashed |= {SIGNAL_PREFIX + name: signal.to_text() for name, signal in self.signals.items()}
        for name, (_, write) in CODECS.items():
            text = write(getattr(self, name))
            if text != DEFAULTS.get(name):
                hashed[name] = text
        return hashed

    @classmethod
    def from_hash(cls, hashed: Mapping[str, str]) -> Record:
        """The record in a Redis hash; unknown fields are ignored, so that an older release can read it."""
        values = {name: read(hashed[name]) for name, (read, _) in CODECS.items() if name in hashed}
        phases = {name: int(hashed[PHASE_PREFIX + name]) for name in PHASES if PHASE_PREFIX + name in hashed}
        signals = {
            name: Signal.from_text(hashed[SIGNAL_PREFIX + name]) for name in SIGNALS if SIGNAL_PREFIX + name in hashed
        }
        return cls(**values, phases=phases, signals=signals)


PHASE_PREFIX = "phase_"
SIGNAL_PREFIX = "signal_"

Codec = tuple[Callable[[str], Any], Callable[[Any], str]]
_TEXT: Codec = (str, str)
_NUMBER: Codec = (float, lambda value: f"{value:.3f}".rstrip("0").rstrip("."))
_COUNT: Codec = (int, str)
_FLAG: Codec = (lambda text: text == "1", lambda value: "1" if value else "0")
_OBJECT: Codec = (json.loads, lambda value: json.dumps(dict(value), sort_keys=True))
_STATUS: Codec = (Status, str)

CODECS: Mapping[str, Codec] = {
    "uuid": _TEXT,
    "user_id": _TEXT,
    "created_at": _NUMBER,
    "size": _TEXT,
    "idle_timeout": _NUMBER,
    "ttl": _NUMBER,
    "labels": _OBJECT,
    "restore_from": _TEXT,
    "status": _STATUS,
    "reason": _TEXT,
    "reason_code": _TEXT,
    "generation": _COUNT,
    "settled": _COUNT,
    "task": _TEXT,
    "stopping": _FLAG,
    "provisioned": _FLAG,
    "request_id": _TEXT,
    "requested_at": _NUMBER,
    "started_at": _NUMBER,
    "last_activity": _NUMBER,
    "replicas": _COUNT,
    "pod_name": _TEXT,
    "delete_backup": _FLAG,
    "delete_partial": _FLAG,
    "backup": _TEXT,
    "backup_lacks": _OBJECT,
    "backup_generation": _COUNT,
    "tries": _COUNT,
    "lease": _COUNT,
    "missed": _COUNT,
    "answered": _COUNT,
    "backup_asked": _COUNT,
    "backup_tries": _COUNT,
    "waiting": _COUNT,
    "unfinished": _COUNT,
    "door": _COUNT,
    "locked_door": _COUNT,
    "epoch": _COUNT,
    "awake_since": _NUMBER,
    "warned": _NUMBER,
    "expiry_tries": _COUNT,
    "risk": _OBJECT,
    "unarchived": _OBJECT,
}
"""How each field of a record is read from and written to its Redis hash; `phases` and `signals` have keys of
their own."""

DEFAULTS: Mapping[str, str] = {
    name: CODECS[name][1](value)
    for name, value in vars(Record(uuid="", user_id="", created_at=0, status=Status.CREATED)).items()
    if name in CODECS and name not in {"uuid", "user_id", "created_at", "status", "generation"}
}
"""The texts of the fields a hash leaves out while they stand at their default."""


def encode(values: Mapping[str, Any]) -> dict[str, str]:
    """Some fields of a record as the texts its Redis hash holds."""
    return {name: CODECS[name][1](value) for name, value in values.items()}
