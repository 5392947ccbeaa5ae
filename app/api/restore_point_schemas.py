"""Schemas of restore points."""

from __future__ import annotations

from marshmallow import Schema

from app.api.answers import Items, Text, Time, Truth, Whole
from app.api.request_fields import POINT_REGEX
from app.core.restore_points.names import ID_PATTERN, reference

ID_REGEX = f"^{ID_PATTERN.pattern}$"
TRIGGERS = ("sleep", "interval", "archive", "rollback", "api")


class RestorePointSchema(Schema):
    id = Text(pattern=ID_REGEX)
    created_at = Time()
    trigger = Text(enum=list(TRIGGERS))
    files = Whole()
    size = Whole("bytes of its files")
    stored = Whole("bytes that it added to the store")
    unreadable = Whole("how many files it lacks, which could not be read when it was made")
    message_id = Text("the last message that had ended when it was made", null=True)
    verified_at = Time(null=True)
    proven_at = Time(null=True)
    broken = Truth("a check or a drill found some of its data missing")
    restore_from = Text(
        "`restore_from` of a new session with its files",
        of=lambda point: reference(point.uuid, point.id),
        pattern=POINT_REGEX,
    )


class RestorePointListSchema(Schema):
    total = Whole()
    restore_points = Items(RestorePointSchema, of="items")
    next_cursor = Text(null=True)
