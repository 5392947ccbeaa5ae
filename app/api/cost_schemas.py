"""Schemas of the calls on costs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from marshmallow import Schema, ValidationError, fields

from app.api.answers import Items, Number, Object, Part, Shown, Text, Whole, uuid_field
from app.api.request_fields import BARE_LABEL, PageQuerySchema, Strict, WholeText, label_filter, user_id_field
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


class TokenCountSchema(Schema):
    prompt = Whole()
    completion = Whole()


class TokenPriceSchema(Schema):
    prompt = Number()
    completion = Number()


class DollarsSchema(Schema):
    """By what they are spent on, each rounded to six places by itself."""

    compute, disk, backups, points, tokens = (Number(f"for {kind}") for kind in KINDS)
    total = Number("the sum, before rounding")


class PricesSchema(Schema):
    vcpu_hour = Number()
    gib_hour = Number()
    compute_hour = Object("by size", values=fields.Float())
    disk_gib_month = Number()
    backup_gib_month = Number()
    million_tokens = Object("by model; `other` is for all other models", values=fields.Nested(TokenPriceSchema))


class UsageSchema(Schema):
    compute_seconds = Object("by size: from the processes' start to their end", values=fields.Float())
    storage_gib_hours = Number("of the volume")
    backup_gib_hours = Number()
    point_gib_hours = Number("of what restore points keep in the store")
    tokens = Object("by model, of failed and cancelled turns too", values=fields.Nested(TokenCountSchema))
    dollars = Part(DollarsSchema)
    saved_dollars = Number("what the processes would have cost besides, had they always run")


class LabelValue(Shown, fields.String):
    """A text that may be empty without being null."""


class CostRowSchema(UsageSchema):
    uuid = Text("of a session's row", optional=True)
    user_id = Text("of a session's or a user's row", optional=True)
    size = Text("of a session's or a size's row", optional=True)
    labels = Object(optional=True, values=fields.String())
    day = Text("of a day's row", optional=True, format="date")
    label = LabelValue("the label's value; null without the label", optional=True, null=True)
    sessions = Whole("how many are in this row", optional=True)


def range_field(name: str, description: str) -> Text:
    return Text(description, name=name, format="date")


class DayUsageSchema(UsageSchema):
    day = Text(format="date")


class SessionCostSchema(UsageSchema):
    uuid = uuid_field()
    user_id = Text()
    size = Text()
    labels = Object(values=fields.String())
    first = range_field("from", "the first day")
    last = range_field("to", "the last day")
    days = Items(DayUsageSchema, "the days with any use, oldest first")
    prices = Part(PricesSchema)


class CostsSchema(Schema):
    first = range_field("from", "the first day")
    last = range_field("to", "the last day")
    group_by = Text()
    total = Whole("rows in all; of sessions, those that may have one")
    rows = Items(CostRowSchema)
    prices = Part(PricesSchema)
    next_cursor = Text(null=True)
