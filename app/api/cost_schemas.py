"""Schemas of the calls on costs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from marshmallow import Schema, ValidationError, fields

from app.api.schemas import BARE_LABEL, PageQuerySchema, Strict, WholeText, label_filter, user_id_field, uuid_field
from app.core.costs.usage import KINDS

DAY_REGEX = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
GROUP_REGEX = f"^(session|user|size|day|label:{BARE_LABEL})$"


class Day(fields.String):
    """A day (UTC) in a query string."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, str) or not re.fullmatch(DAY_REGEX.removeprefix("^").removesuffix("$"), value):
            raise ValidationError("Must be a day, as 2026-11-20.")
        try:
            day = date.fromisoformat(value)
        except ValueError as error:
            raise ValidationError("There is no such day.") from error
        if not 1970 <= day.year < 9999:
            raise ValidationError("There is no such day.")
        return day


def day_field(description: str, name: str) -> Day:
    shown = {"description": description, "format": "date", "examples": ["2026-11-01"]}
    return Day(data_key=name, metadata=shown)


class DaysQuerySchema(Strict):
    first = day_field("the first day, in UTC; by default the first of the month of `to`", "from")
    last = day_field("the last day, which counts too; by default today; 400 days at most", "to")


class CostsQuerySchema(DaysQuerySchema, PageQuerySchema):
    user_id = user_id_field()
    label = label_filter("only sessions with this label and value")
    group_by = fields.String(
        load_default="session",
        validate=WholeText(GROUP_REGEX, "Must be session, user, size, day, or label: with a label, as label:course."),
        metadata={"description": "one row for each session, user, size, day, or value of a label"},
    )


def dollars_field(description: str) -> fields.Float:
    return fields.Float(required=True, metadata={"description": description})


class TokenCountSchema(Schema):
    prompt = fields.Integer(required=True)
    completion = fields.Integer(required=True)


class TokenPriceSchema(Schema):
    prompt = fields.Float(required=True)
    completion = fields.Float(required=True)


class DollarsSchema(Schema):
    """By what they are spent on, each rounded to six places by itself."""

    compute, disk, backups, points, tokens = (dollars_field(f"for {kind}") for kind in KINDS)
    total = dollars_field("the sum, before rounding")


class PricesSchema(Schema):
    vcpu_hour = fields.Float(required=True)
    gib_hour = fields.Float(required=True)
    compute_hour = fields.Dict(
        keys=fields.String(), values=fields.Float(), required=True, metadata={"description": "by size"}
    )
    disk_gib_month = fields.Float(required=True)
    backup_gib_month = fields.Float(required=True)
    million_tokens = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(TokenPriceSchema),
        required=True,
        metadata={"description": "by model; `other` is for all other models"},
    )


class UsageSchema(Schema):
    compute_seconds = fields.Dict(
        keys=fields.String(),
        values=fields.Float(),
        required=True,
        metadata={"description": "by size: from the processes' start to their end"},
    )
    storage_gib_hours = fields.Float(required=True, metadata={"description": "of the volume"})
    backup_gib_hours = fields.Float(required=True)
    point_gib_hours = fields.Float(required=True, metadata={"description": "of what restore points keep in the store"})
    tokens = fields.Dict(
        keys=fields.String(),
        values=fields.Nested(TokenCountSchema),
        required=True,
        metadata={"description": "by model, of failed and cancelled turns too"},
    )
    dollars = fields.Nested(DollarsSchema, required=True)
    saved_dollars = dollars_field("what the processes would have cost besides, had they always run")


class CostRowSchema(UsageSchema):
    uuid = fields.String(metadata={"description": "of a session's row"})
    user_id = fields.String(metadata={"description": "of a session's or a user's row"})
    size = fields.String(metadata={"description": "of a session's or a size's row"})
    labels = fields.Dict(keys=fields.String(), values=fields.String())
    day = fields.String(metadata={"description": "of a day's row", "format": "date"})
    label = fields.String(allow_none=True, metadata={"description": "the label's value; null without the label"})
    sessions = fields.Integer(metadata={"description": "how many are in this row"})


def range_field(name: str, description: str) -> fields.String:
    return fields.String(data_key=name, required=True, metadata={"description": description, "format": "date"})


class DayUsageSchema(UsageSchema):
    day = fields.String(required=True, metadata={"format": "date"})


class SessionCostSchema(UsageSchema):
    uuid = uuid_field()
    user_id = fields.String(required=True)
    size = fields.String(required=True)
    labels = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    first = range_field("from", "the first day")
    last = range_field("to", "the last day")
    days = fields.List(
        fields.Nested(DayUsageSchema), required=True, metadata={"description": "the days with any use, oldest first"}
    )
    prices = fields.Nested(PricesSchema, required=True)


class CostsSchema(Schema):
    first = range_field("from", "the first day")
    last = range_field("to", "the last day")
    group_by = fields.String(required=True)
    total = fields.Integer(required=True, metadata={"description": "rows in all; of sessions, those that may have one"})
    rows = fields.List(fields.Nested(CostRowSchema), required=True)
    prices = fields.Nested(PricesSchema, required=True)
    next_cursor = fields.String(required=True, allow_none=True)
