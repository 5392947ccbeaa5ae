"""Schemas of rollbacks and forks."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, validates_schema

from app.api.answers import Text, Time, uuid_field
from app.api.request_fields import MESSAGE_ID_REGEX, Strict, WholeText, user_id_field
from app.api.restore_point_schemas import ID_REGEX
from app.api.session_schemas import CreatedSessionSchema


def point_field() -> fields.String:
    return fields.String(
        validate=WholeText(ID_REGEX, "Must be the `id` of a restore point."),
        metadata={"description": "the `id` of one of the session's restore points"},
    )


def message_field() -> fields.String:
    return fields.String(
        validate=WholeText(MESSAGE_ID_REGEX, "1 to 64 of A-Z a-z 0-9 . _ -"),
        metadata={"description": "the message before which the state is wanted"},
    )


class RollbackSchema(Strict):
    restore_point = point_field()
    message_id = message_field()

    @validates_schema
    def check_one(self, data: dict[str, Any], **_: Any) -> None:
        if len(data) != 1:
            raise ValidationError("Give either `restore_point` or `message_id`.")


class ForkSchema(Strict):
    user_id = user_id_field()
    restore_point = point_field()
    message_id = message_field()

    @validates_schema
    def check_at_most_one(self, data: dict[str, Any], **_: Any) -> None:
        if "restore_point" in data and "message_id" in data:
            raise ValidationError("Give `restore_point` or `message_id`, not both.")


class ForkedSessionSchema(CreatedSessionSchema):
    forked_from = uuid_field(of="forked_at.uuid")
    restore_point = Text(of="forked_at.id", pattern=ID_REGEX)
    files_of = Time(of="forked_at.created_at")
