"""Schemas of the activity calls."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from marshmallow import Schema, ValidationError, fields, validates_schema

from app.api.schemas import Strict, WholeText, seconds, status_field, time_field, uuid_field
from app.api.session_schemas import risk_field
from app.core.sessions.awake_hours import HOURS
from app.core.sessions.idle_policy import WAITING, WAKE

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


class KeptSchema(Schema):
    uuid = uuid_field()
    action = fields.String(required=True)
    status = status_field()
    until = time_field(required=True, allow_none=True)
    hours = fields.String(required=True)


class VerdictSchema(Schema):
    idle = fields.Boolean(required=True)
    why = fields.String(required=True)


class SignalSchema(Schema):
    signal = fields.String(
        required=True, metadata={"description": f"an activity signal; {WAKE} for the start, {WAITING} for prompts"}
    )
    last_at = time_field(required=True, allow_none=True)
    age_seconds = fields.Float(required=True, allow_none=True)
    counts_seconds = fields.Float(
        required=True, allow_none=True, metadata={"description": "how long it counts after `last_at`"}
    )
    holds = fields.Boolean(required=True, metadata={"description": "whether it keeps the session awake now"})
    until = time_field(required=True, allow_none=True)
    by_a_person = fields.Boolean(
        required=True, metadata={"description": "other signals count until MAX_AWAKE after the last one by a person"}
    )
    detail = fields.String(required=True, allow_none=True)


class ActivitySchema(Schema):
    uuid = uuid_field()
    status = status_field()
    verdict = fields.Nested(VerdictSchema, required=True)
    sleeps_at = time_field(required=True, allow_none=True)
    only_a_person_counts_from = time_field(required=True, allow_none=True)
    next_check = time_field(required=True, allow_none=True)
    idle_timeout = fields.Float(required=True)
    signals = fields.List(fields.Nested(SignalSchema), required=True)
    timestamp = time_field(required=True)


class RiskSchema(Schema):
    uuid = uuid_field()
    status = status_field()
    known = fields.Boolean(required=True)
    risk = risk_field()
