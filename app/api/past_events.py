"""A session's past events, page by page; `/events` follows the new ones."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields

from app.api.answers import Items, Object, Text, Time, uuid_field
from app.api.blueprint import Blueprint
from app.api.current import core
from app.api.request_fields import PageQuerySchema, WholeText
from app.api.security import visible_session
from app.core.redis.events import ID_PATTERN, is_event_id

blp = Blueprint("past_events", __name__, description="What happened to a session.")

TYPES_REGEX = "^[a-z_]{1,32}(,[a-z_]{1,32}){0,15}$"
CURSOR_REGEX = f"^{ID_PATTERN.pattern}$"
NO_CURSOR = "Must be the next_cursor of the page before."


def check_cursor(cursor: str) -> None:
    """Raises `ValidationError`; the pattern allows numbers larger than those of ids."""
    if not is_event_id(cursor):
        raise ValidationError(NO_CURSOR)


class PastEventsQuerySchema(PageQuerySchema):
    type = fields.String(
        validate=WholeText(TYPES_REGEX, "Must be types of events, as state or state,phase."),
        metadata={"description": "only events of these types", "examples": ["state,phase"]},
    )
    cursor = fields.String(
        validate=[WholeText(CURSOR_REGEX, NO_CURSOR), check_cursor],
        metadata={"description": "next_cursor of the page before"},
    )


class PastEventSchema(Schema):
    id = Text(examples=["1795164301412-0"])
    type = Text(examples=["state"])
    at = Time()
    data = Object("as in the event stream")


class PastEventsSchema(Schema):
    uuid = uuid_field()
    events = Items(PastEventSchema)
    next_cursor = Text(null=True)


@blp.route("/session/<session:uuid>/events/past", methods=["GET"])
@blp.arguments(PastEventsQuerySchema, location="query")
@blp.response(200, PastEventsSchema)
@blp.operation("listSessionEvents", 400, 404, session_token=True)
def past(query: dict[str, Any], uuid: str) -> dict[str, Any]:
    """List the events that are kept of a session, newest first: the last thousand, of a sleeping session a hundred."""
    visible_session(uuid)
    types = frozenset(query["type"].split(",")) if "type" in query else None
    events, following = core().events.past(uuid, query.get("cursor", ""), query["limit"], types)
    return {"uuid": uuid, "events": events, "next_cursor": following}
