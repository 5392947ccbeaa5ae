"""The idle policy: a pure function that says whether a session is idle, and why. Sweep and `/activity` use it.

Each signal keeps a session awake for a while. A person's actions (a prompt, a keystroke, input to a terminal) always
count. What may go on by itself (a turn, a browser's requests, a job, a keepalive, hours) counts until `MAX_AWAKE`
after a person's last action: that bounds the bill.

A time in the future means that the clock jumped back. It counts as now, which can only keep a session awake, and the
sweep overwrites it with now, so that it does so once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.core.sessions.awake_hours import BadHours, Span, hours_end, read_hours
from app.core.sessions.counted_time import Counted
from app.core.sessions.model import Record, Signal, Status, iso, longest_unused
from app.core.signal_kinds import QUIET, SIGNALS, Counts, SignalKind
from app.process.settings import Settings, SettingsError

BUSY_GRACE = 60.0
"""s: an agent reports its turn every 10 s; after this silence the turn no longer counts."""

EXPIRY_RETRY, LONGEST_EXPIRY_RETRY = 3_600.0, 86_400.0
"""s until the failed teardown of an expired session is retried, doubled each time up to the longest: a file its backup
can't read now is probably unreadable in an hour."""

AHEAD = 5.0
"""s a time may be in the future because two machines' clocks differ."""

NOT_ASLEEP_RECHECK = 300.0
"""s until another look at a session that is unused for its `ttl` and does not sleep: only what sleeps is archived."""

MAX_RECHECK, MAX_EXPIRY_RECHECK = 3_600.0, 86_400.0
"""s between two checks whether a session is idle, and whether it has expired, at most. A later deadline comes from a
clock that jumped back."""

WARNING = 60.0
"""s before a sleep that it is announced."""

LEAD_SHARE = 3
"""A warning comes in the last third of the idle timeout at the earliest."""

WAKE, WAITING = "wake", "waiting"
"""Reasons besides the signals: the session has just woken; prompts wait for delivery."""

BY_PERSON = frozenset({WAKE, *(name for name, kind in SIGNALS.items() if kind.by_person)})
"""Actions that need a person. The rest may go on for ever unattended."""


@dataclass(frozen=True)
class Policy:
    """The settings for signals. `windows` is how long a signal counts (s), where that is not the session's idle
    timeout; the others are as in app/process/settings.py."""

    windows: Mapping[str, float] = field(default_factory=dict)
    max_awake: float = 0.0
    wake_grace: float = 0.0
    hours: tuple[Span, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The policy in `settings`; raises `SettingsError`."""
        try:
            hours = read_hours(settings.awake_hours)
        except BadHours as error:
            raise SettingsError(f"AWAKE_HOURS: {error}") from error
        return cls(
            windows=_windows(settings.activity_windows),
            max_awake=settings.max_awake,
            wake_grace=settings.wake_grace,
            hours=hours,
        )


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Something that may keep a session awake: when it was last seen, how long it counts from then (s), and until when;
    the times are 0 if it never was. `detail` is a text for people."""

    name: str
    at: float = 0.0
    counts: float = 0.0
    until: float = 0.0
    detail: str = ""

    @property
    def person(self) -> bool:
        """Whether it needs a person."""
        return self.name in BY_PERSON


@dataclass(frozen=True)
class Verdict:
    """Whether a session should sleep (or expire) now, when to check again (0 never), and why."""

    due: bool
    next_check: float
    why: str


@dataclass(frozen=True)
class ExpiryVerdict(Verdict):
    """Whether a session has expired, or is to be archived (`archive`); `ahead` says whether some of its times are in
    the future."""

    ahead: bool = False
    archive: bool = False


@dataclass(frozen=True)
class IdleVerdict(Verdict):
    """Whether a session is idle, and its reasons. `sleeps_at` is when it sleeps if nothing more happens, infinite for
    never; `limit` is the time from which only a person keeps it awake, infinite for none; `warn` says whether to
    announce the sleep now, `ahead` whether some of its times are in the future."""

    reasons: tuple[Reason, ...] = ()
    sleeps_at: float = math.inf
    limit: float = math.inf
    warn: bool = False
    ahead: bool = False


def idle_verdict(record: Record, policy: Policy, now: float) -> IdleVerdict:
    """Whether an active session is idle. Nothing else decides this."""
    limit = _limit(record, policy, now)
    reasons = _reasons(record, policy, now, limit)
    if record.status is not Status.ACTIVE:
        return IdleVerdict(False, 0.0, f"only an active session can be idle; this one is {record.status}", reasons)
    if not record.idle_timeout:
        return IdleVerdict(False, 0.0, "its idle timeout is 0: it never falls asleep", reasons)
    longest = max(reasons, key=lambda reason: reason.until)
    sleeps_at = longest.until
    ahead = _ahead(record, now)
    if now >= sleeps_at:
        used = max(reason.at for reason in reasons if reason.name != WAITING)
        why = f"unused for {now - used:.0f} s"
        if longest.until == limit:
            why += f"; only a person keeps it awake after {policy.max_awake:.0f} s"
        elif longest.name in QUIET and longest.until == record.signals[longest.name].until:
            why += f"; its {longest.name.replace('_', ' ')} counts no more ({longest.detail})"
        return IdleVerdict(True, sleeps_at, why, reasons, sleeps_at, limit)
    warn_at = sleeps_at - min(WARNING, record.idle_timeout / LEAD_SHARE)
    warned = abs(record.warned - sleeps_at) < 1.0
    next_check = warn_at if now < warn_at else sleeps_at
    return IdleVerdict(
        due=False,
        # Prompts may be delivered, or end, at any time; other reasons end at a known time.
        next_check=min(next_check, now + (record.idle_timeout if record.waiting or record.unfinished else MAX_RECHECK)),
        why=_why(longest, now),
        reasons=reasons,
        sleeps_at=sleeps_at,
        limit=limit,
        warn=warn_at <= now and not warned,
        ahead=ahead,
    )


def expiry_verdict(record: Record, counted: Counted, retention: float) -> ExpiryVerdict:
    """Whether a session is unused for its `ttl`, which archives it, or for `ARCHIVE_RETENTION`, which ends it: by the
    counted time since its last use."""
    now = counted.now
    if record.status is Status.TERMINATED:
        return ExpiryVerdict(False, 0.0, "already terminated")
    if record.status is Status.TERMINATING:
        return ExpiryVerdict(False, now + EXPIRY_RETRY, "being terminated")
    if not record.ttl:
        return ExpiryVerdict(False, 0.0, "its ttl is 0: it never expires")
    unused = counted.age(record.last_activity)
    longest = longest_unused(record.ttl, retention)
    left = longest - unused if longest else math.inf
    if left <= 0 and record.expiry_tries:
        left = expiry_pause(record.expiry_tries) - counted.age(record.requested_at)
        why = f"expired; its backup failed {record.expiry_tries} times and is retried in {left:.0f} s"
        if left > 0:
            return ExpiryVerdict(False, now + min(left, MAX_EXPIRY_RECHECK), why)
    if left <= 0:
        return ExpiryVerdict(True, now, f"unused for longer than {longest:.0f} s")
    ahead = _ahead(record, now)
    if not record.archived_at and unused < record.ttl:
        left = min(left, record.ttl - unused)
    elif not record.archived_at:
        if record.status is Status.SLEEPING and not ahead:
            return ExpiryVerdict(False, now, f"unused for its ttl, {record.ttl:.0f} s", archive=True)
        left = min(left, record.ttl, NOT_ASLEEP_RECHECK)
    return ExpiryVerdict(False, now + min(left, MAX_EXPIRY_RECHECK), "not expired", ahead)


def expiry_pause(tries: int) -> float:
    """s until an expired session whose deletion failed so many times is tried again."""
    return min(EXPIRY_RETRY * 2 ** min(tries - 1, 30), LONGEST_EXPIRY_RETRY)


def not_ahead(record: Record, now: float) -> dict[str, Any]:
    """The record's times that lie in the future, replaced by now, for a change to write."""
    signals = {name: Signal(now, each.until, each.detail) for name, each in record.signals.items() if each.at > now}
    times = {name: now for name in ("last_activity", "awake_since") if getattr(record, name) > now}
    return {"signals": signals, **times}


def _limit(record: Record, policy: Policy, now: float) -> float:
    """The time from which only a person keeps the session awake."""
    if not policy.max_awake:
        return math.inf
    done = [signal.at for name, signal in record.signals.items() if name in BY_PERSON]
    return max(min(at, now) for at in [_came_up(record), *done]) + policy.max_awake


def _reasons(record: Record, policy: Policy, now: float, limit: float) -> tuple[Reason, ...]:
    came_up = min(_came_up(record), now)
    grace = max(record.idle_timeout, policy.wake_grace)
    reasons = [Reason(name=WAKE, at=came_up, counts=grace, until=came_up + grace)]
    if record.waiting:
        detail = f"{record.waiting} prompts wait for its agent"
        reasons.append(Reason(name=WAITING, at=now, counts=math.inf, until=limit, detail=detail))
    for kind in SIGNALS.values():
        reason = _of_signal(kind, record, policy, now)
        reasons.append(reason if reason.person else _limited(reason, limit))
    return tuple(reasons)


def _of_signal(kind: SignalKind, record: Record, policy: Policy, now: float) -> Reason:
    name = kind.name
    signal = record.signals.get(name, Signal(0.0))
    at = min(signal.at, now)
    if kind.counts is Counts.IN_HOURS:
        spans = policy.hours + _hours(signal.detail)
        return Reason(name=name, at=at, until=hours_end(spans, now), detail=signal.detail)
    if kind.counts is Counts.TO_END:
        return Reason(name=name, at=at, counts=max(0.0, signal.until - at), until=signal.until)
    counts = policy.windows.get(name, record.idle_timeout)
    if kind.counts is Counts.WITHIN_END and at:
        # For as long as it is seen again and again, and not beyond its own end.
        until = min(at + counts, max(at, signal.until))
        at_most = f"{signal.detail}, until {iso(signal.until)} at most".removeprefix(", ")
        return Reason(name=name, at=at, counts=until - at, until=until, detail=at_most)
    if kind.counts is Counts.WITH_PROMPTS and record.unfinished:
        counts = max(counts, BUSY_GRACE)
    return Reason(name=name, at=at, counts=counts, until=at + counts if at else 0.0, detail=signal.detail)


def _limited(reason: Reason, limit: float) -> Reason:
    return reason if reason.until <= limit else replace(reason, until=limit)


def _came_up(record: Record) -> float:
    """When the session woke; when it was last used if it never did, or is archived."""
    return record.awake_since or record.last_activity


def _ahead(record: Record, now: float) -> bool:
    times = [record.last_activity, record.awake_since, *(signal.at for signal in record.signals.values())]
    return max(times) > now + AHEAD


def _why(longest: Reason, now: float) -> str:
    """Why the session is awake: the reason that holds the longest."""
    if longest.name == WAITING:
        return longest.detail
    detail = f" ({longest.detail})" if longest.detail else ""
    ago = f"{now - longest.at:.0f} s ago{detail}"
    if longest.name == WAKE:
        return f"it woke {ago}"
    kind = SIGNALS[longest.name]
    if kind.has_window:
        return f"{kind.seen} {ago}"
    return f"{kind.seen} for {longest.until - now:.0f} s more{detail}"


def _hours(text: str) -> tuple[Span, ...]:
    try:
        return read_hours(text)
    except BadHours:
        return ()  # another release wrote it


def _windows(text: str) -> Mapping[str, float]:
    timed = [name for name, kind in SIGNALS.items() if kind.has_window]
    try:
        windows = {str(name): float(seconds) for name, seconds in json.loads(text).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise SettingsError('ACTIVITY_WINDOWS must be a JSON object of seconds, as {"browser": 300}.') from error
    for name, seconds in windows.items():
        if name not in timed or not 0 <= seconds < math.inf:
            raise SettingsError(f"ACTIVITY_WINDOWS: {name} is not one of {', '.join(timed)} with seconds from 0 on.")
    return windows
