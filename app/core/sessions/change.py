"""A change of one session: the argument and the answer of the script `change`, which makes all of it or nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from app.core.errors import BackupInUse, IllegalState, SessionNotFound, Superseded
from app.core.redis import keys
from app.core.redis.events import EVENTS_BYTES, EVENTS_KEPT, EVENTS_KEPT_ASLEEP
from app.core.redis.scripts import pairs
from app.core.sessions.model import (
    DEFAULTS,
    PHASE_PREFIX,
    Record,
    Signal,
    Status,
    encode,
    number,
    sources,
)
from app.core.signal_kinds import SIGNAL_PREFIX, SIGNALS
from app.process import tracing

TOMBSTONE_TTL = 86_400
"""s that the record of a terminated session is kept, so that the API still shows what became of it."""


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """What begins or ends to cost with a change, in seconds since the epoch, 0 for nothing.

    The processes ended at `ran_until`, or `never_ran`; they run since `runs_from`, which also moves the beginning of an
    interval. The volume was gone at `kept_until`, or exists since `kept_from`, with `mib`. The restore points were gone
    at `points_until`, or keep `points_kib` in the store since `points_from`. What exists does not begin again, and an
    interval that began later than the end is a newer one and goes on."""

    ran_until: float = 0.0
    never_ran: bool = False
    runs_from: float = 0.0
    kept_until: float = 0.0
    kept_from: float = 0.0
    mib: int = 0
    points_until: float = 0.0
    points_from: float = 0.0
    points_kib: int = 0

    @classmethod
    def of_points(cls, since: float, size: int) -> Intervals:
        """The restore points keep so many bytes in the store."""
        return cls(points_from=since, points_kib=-(-size // 1024))

    def to_texts(self) -> dict[str, str]:
        """As the part `intervals` of lua/ledger.lua takes them."""
        return {each.name: number(value) for each in fields(self) if (value := getattr(self, each.name))}


@dataclass(frozen=True, kw_only=True)
class Change:
    """What to change of a session.

    `to` moves it, by the transition table; one in `noop` is left as it is. `touch` notes in either case that someone
    asked for the session. `expect` are fields that must still have these values, `fields` those to set.

    `signals` are set, `forget_signals` removed.

    `task` makes it a new intent: the generation grows and the intent is overdue at `due`. `settle` says that the
    current intent is carried out, `then` which task continues it. `next_epoch` ends the workspace's token. `idle_at` is
    when to check next whether the session is idle. `event` is its type and data, by default the new state; `events_ttl`
    (s) lets the session's events expire unless more come. `ledger` is what begins or ends to cost."""

    to: Status | None = None
    noop: Collection[Status] = ()
    touch: bool = False
    expect: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    phases: Mapping[str, int] = field(default_factory=dict)
    clear_phases: bool = False
    signals: Mapping[str, Signal] = field(default_factory=dict)
    forget_signals: Collection[str] = ()
    task: str = ""
    due: float = 0.0
    settle: bool = False
    then: str = ""
    next_epoch: bool = False
    idle_at: float = 0.0
    event: tuple[str, Mapping[str, Any]] | None = None
    events_ttl: float = 0.0
    ledger: Intervals | None = None

    @classmethod
    def of(cls, **wanted: Any) -> Change:
        """A change by keywords: those that are not named above are fields of the record to set."""
        own = {name: wanted.pop(name) for name in OPTIONS & wanted.keys()}
        return cls(fields=wanted, **own)

    @classmethod
    def intent(
        cls, to: Status | None, *, task: str, noop: Collection[Status], due: float, request_id: str, **wanted: Any
    ) -> Change:
        """A new intent, and what every one of them resets."""
        reset = {"clear_phases": True, "reason": "", "reason_code": "", "started_at": 0.0}
        behind = {"request_id": request_id, "traceparent": tracing.traceparent()}
        return cls.of(to=to, task=task, noop=noop, due=due, **behind, **reset, **wanted)

    def to_json(self, uuid: str, now: float) -> str:
        """The script's argument."""
        texts = encode({**self.fields, **({"task": self.then} if self.then else {})})
        kept = {name: text for name, text in texts.items() if DEFAULTS.get(name) != text}
        kept |= {PHASE_PREFIX + name: str(ms) for name, ms in self.phases.items()}
        kept |= {SIGNAL_PREFIX + name: signal.to_text() for name, signal in self.signals.items()}
        event_type, event_data = self.event or self._state_event()
        document = {
            "uuid": uuid,
            "now": number(now),
            "expect": _expected(self.expect),
            "set": kept,
            "clear": [
                *(name for name in texts if name not in kept),
                *(SIGNAL_PREFIX + name for name in self.forget_signals),
            ],
            "clear_prefix": PHASE_PREFIX if self.clear_phases else "",
            "to": self.to or "",
            "from": sorted(sources(self.to)) if self.to else [],
            "noop": sorted(self.noop),
            "task": self.task,
            "due": number(self.due),
            "settle": self.settle,
            "next_epoch": self.next_epoch,
            "touch": self.touch,
            "idle_at": number(self.idle_at),
            "status_key": keys.BY_STATUS.format(status=""),
            "backups_key": keys.BACKUPS,
            "in_use_key": keys.IN_USE,
            "user_key": keys.BY_USER.split("{", 1)[0],
            "event": {"type": event_type, "data": json.dumps(event_data)},
            "events_kept": EVENTS_KEPT_ASLEEP if self.events_ttl else EVENTS_KEPT,
            "events_bytes": EVENTS_BYTES,
            "events_ttl": TOMBSTONE_TTL if self.to is Status.TERMINATED else int(self.events_ttl),
            "tombstone_ttl": TOMBSTONE_TTL,
        }
        if self.ledger and (intervals := self.ledger.to_texts()):
            document["ledger"] = intervals
        return json.dumps(document)

    def _state_event(self) -> tuple[str, Mapping[str, Any]]:
        if not self.to:
            return "", {}
        shown = {name: self.fields[name] for name in ("reason", "reason_code", "backup") if self.fields.get(name)}
        return "state", {"status": self.to, **shown}


OPTIONS = frozenset(each.name for each in fields(Change)) - {"fields"}


@dataclass(frozen=True)
class Changed:
    """The record after a change; `applied` is False when the session was that way already."""

    record: Record
    applied: bool

    @classmethod
    def from_answer(cls, uuid: str, to: Status | None, answer: Sequence[Any]) -> Changed:
        """What the script answered; raises as `SessionStore.apply`."""
        code, detail, flat = answer
        if code == "missing":
            raise SessionNotFound(uuid)
        if code == "stale":
            raise Superseded(f"Session {uuid} changed in the meantime ({detail}); retry.")
        if code == "in_use":
            raise source_in_use(uuid, detail)
        if code == "illegal":
            raise IllegalState(f"Session {uuid} cannot go from `{detail}` to `{to}`.")
        return cls(Record.from_hash(pairs(flat)), applied=code == "ok")


def source_in_use(uuid: str, source: str) -> BackupInUse:
    """The refusal of an erasure while another session is being restored from this one."""
    return BackupInUse(f"Another session is being restored from {source} of session {uuid}; erase it after that.")


def change_keys(uuid: str) -> dict[str, str]:
    """The keys of a script that makes a change."""
    return {
        "session": keys.SESSION.format(uuid=uuid),
        "events": keys.EVENTS.format(uuid=uuid),
        "intents": keys.INTENTS,
        "idle": keys.IDLE,
        "expiry": keys.EXPIRY,
        "all": keys.ALL,
    }


def _expected(expect: Mapping[str, Any]) -> dict[str, str]:
    """The texts in the hash while these fields are unchanged, "" for a default; `signals` must be all there are."""
    texts = encode({name: value for name, value in expect.items() if name != "signals"})
    plain = {name: "" if DEFAULTS.get(name) == text else text for name, text in texts.items()}
    if "signals" not in expect:
        return plain
    seen: Mapping[str, Signal] = expect["signals"]
    return plain | {SIGNAL_PREFIX + name: seen[name].to_text() if name in seen else "" for name in SIGNALS}
