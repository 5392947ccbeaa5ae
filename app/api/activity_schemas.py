"""Schemas of the activity calls."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from marshmallow import Schema, ValidationError, fields, validates_schema

from app.api.answers import Items, Number, Part, Text, Time, Truth, status_field, uuid_field
from app.api.request_fields import Strict, WholeText, seconds
from app.api.session_schemas import risk_field
from app.core.sessions.awake_hours import HOURS
from app.core.sessions.idle_policy import WAITING, WAKE, IdleVerdict, Reason
from app.core.sessions.model import Record, Signal

HOURS_REGEX = f"^{HOURS.pattern}$"


class KeepAliveSchema(Strict):
    seconds = seconds("from now, KEEPALIVE_MAX at most; 0 ends it (s)")
    until = fields.AwareDateTime(
        format="iso",
        default_timezone=UTC,
        metadata={"description": "a time instead; UTC if it names no zone", "format": "date-time"},
    )
    hours = fields.String(
        validate=WholeText(HOURS_REGEX, "Must be hours of the week, as Mon-Fri 08:00-18:00."),
        metadata={"description": "of each week, in UTC, from now on", "examples": ["Mon-Fri 08:00-18:00"]},
    )

    @validates_schema
    def check_one(self, values: dict[str, Any], **_: Any) -> None:
        """Raises `ValidationError` unless exactly one field is given."""
        if len(values) != 1:
            raise ValidationError(f"Give exactly one of {', '.join(self.fields)}.")


NOT_KEPT = Signal(0.0)
"""The signal of a session that no call keeps awake."""


def kept(record: Record, name: str) -> Signal:
    return record.signals.get(name, NOT_KEPT)


class KeptSchema(Schema):
    """Of a session's record."""

    uuid = uuid_field()
    action = Text(of=lambda _: "keepalive")
    status = status_field()
    until = Time(of=lambda record: kept(record, "keepalive").until, null=True)
    hours = Text(of=lambda record: kept(record, "window").detail)


@dataclass(frozen=True)
class Seen:
    """An activity signal as it is `now`."""

    reason: Reason
    now: float


@dataclass(frozen=True)
class Explained:
    """A session's idle verdict, made `now`."""

    record: Record
    verdict: IdleVerdict
    now: float

    @property
    def signals(self) -> list[Seen]:
        return [Seen(reason, self.now) for reason in self.verdict.reasons]


def finite(moment: float) -> float | None:
    """A time or a length, None for never and for ever."""
    return None if math.isinf(moment) else moment


def while_awake(verdict: IdleVerdict, moment: float) -> float | None:
    """A time that only an active session with an idle timeout has."""
    return finite(moment) if verdict.next_check > 0.0 else None


def age(seen: Seen) -> float | None:
    """How long ago (s) a signal was seen, None if it never was."""
    return round(max(0.0, seen.now - seen.reason.at), 3) if seen.reason.at else None


def counts_for(seen: Seen) -> float | None:
    """How long (s) a signal counts, None for ever."""
    return finite(round(seen.reason.counts, 3))


class VerdictSchema(Schema):
    idle = Truth(of="due")
    why = Text()


class SignalSchema(Schema):
    signal = Text(f"an activity signal; {WAKE} for the start, {WAITING} for prompts", of="reason.name")
    last_at = Time(of="reason.at", null=True)
    age_seconds = Number(of=age, null=True)
    counts_seconds = Number("how long it counts after `last_at`", of=counts_for, null=True)
    holds = Truth("whether it keeps the session awake now", of=lambda seen: seen.reason.until > seen.now)
    until = Time(of=lambda seen: finite(seen.reason.until), null=True)
    by_a_person = Truth("other signals count until MAX_AWAKE after the last one by a person", of="reason.person")
    detail = Text(of="reason.detail", null=True)


class ActivitySchema(Schema):
    uuid = uuid_field(of="record.uuid")
    status = status_field(of="record.status")
    verdict = Part(VerdictSchema)
    sleeps_at = Time(of=lambda told: while_awake(told.verdict, told.verdict.sleeps_at), null=True)
    only_a_person_counts_from = Time(of=lambda told: while_awake(told.verdict, told.verdict.limit), null=True)
    next_check = Time(of=lambda told: finite(told.verdict.next_check), null=True)
    idle_timeout = Number(of="record.idle_timeout")
    signals = Items(SignalSchema)
    timestamp = Time(of="now")


class RiskSchema(Schema):
    uuid = uuid_field()
    status = status_field()
    known = Truth()
    risk = risk_field()
