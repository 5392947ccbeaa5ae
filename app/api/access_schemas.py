"""Schemas of the calls on access to a workspace."""

from __future__ import annotations

from marshmallow import Schema, ValidationError, fields

from app.api.answers import Text, Time, uuid_field
from app.api.request_fields import Flag, Strict
from app.core.access.landing_path import LANDING_REGEX, LONGEST, is_landing


def check_landing(text: str) -> None:
    """Raises `ValidationError` for a path that could lead to another host, or carries a login link."""
    if not is_landing(text):
        raise ValidationError(
            f"Must be a path after one slash, without host, fragment or login link: at most {LONGEST} characters."
        )


class OpenSchema(Strict):
    path = fields.String(
        validate=check_landing,
        metadata={
            "description": "where the link leads in the workspace: a path with its query, without a host",
            "maxLength": LONGEST,
            "pattern": LANDING_REGEX,
            "examples": ["/?folder=/app"],
        },
    )


class RevokeSchema(Strict):
    restart = Flag(
        load_default=False,
        metadata={"description": "also end all programs in the workspace, and start it again: it is away for seconds"},
    )


class OpenedSchema(Schema):
    uuid = uuid_field()
    url = Text("single-use login link, valid until `expires_at`")
    expires_at = Time()


class TokenSchema(Schema):
    uuid = uuid_field()
    token = Text()
    expires_at = Time()
