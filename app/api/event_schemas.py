"""Schemas of server-sent events: the data of each type, and the streams.

OpenAPI 3.1 has no word for events. A stream is a string of the type `text/event-stream`; its `contentSchema` describes
what a parser makes of it: a list of events, each with its `id`, its type (`event`) and its `data`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields, validate

from app.api.feed_schemas import FEED_SCHEMAS, FilesLostEventSchema, FilesRestoredEventSchema
from app.api.message_schemas import Arguments, MessageSchema
from app.api.schemas import status_field, time_field, uuid_field
from app.core.sessions.model import Status
from app.core.sessions.unsaved_work import KINDS


class RolledBackEventSchema(Schema):
    """The session was rolled back, or a rollback was called off and the files are as they were."""

    status = fields.String(required=True, validate=validate.OneOf(["done", "failed"]))
    restore_point = fields.String(
        allow_none=True, metadata={"description": "the restore point, null if an agent undid a message"}
    )
    message_id = fields.String(metadata={"description": "the message before which the state is, if it was named"})
    restored = fields.String(
        metadata={"description": "`checkpoint` if the agent undid the message, else `restore_point`"}
    )
    files_of = time_field(allow_none=True)
    saved = fields.String(
        allow_none=True, metadata={"description": "the restore point of the state before the rollback"}
    )
    fell_back = fields.Boolean(
        metadata={"description": "the restore point was broken; this is the newest whole one before it"}
    )
    prompts = fields.Integer(metadata={"description": "how many prompts were marked"})
    reason = fields.String(metadata={"description": "why it was called off"})


class ForkedFromEventSchema(Schema):
    """The session was created with the files of another one's restore point."""

    uuid = uuid_field()
    restore_point = fields.String(required=True)
    files_of = time_field(required=True, allow_none=True)


STREAM = "text/event-stream"


class StateEventSchema(Schema):
    """The session's state."""

    status = status_field()
    reason = fields.String(
        required=True, allow_none=True, metadata={"description": "why it failed, or what its start waits for"}
    )
    reason_code = fields.String(required=True, allow_none=True)
    backup = fields.String(metadata={"description": "the last backup, of a session that was deleted"})


class PhaseEventSchema(Schema):
    """A step is done: of a start, `stopped` of a sleep, `deleting` of a deletion. `restoring` and `restored` say what
    is restored, where that is known."""

    phase = fields.String(required=True)
    ms = fields.Integer(required=True, metadata={"description": "since it was asked for"})
    files = fields.Integer(metadata={"description": "how many are restored"})
    bytes = fields.Integer(metadata={"description": "of these files"})
    of = time_field()


class BackupEventSchema(Schema):
    """A backup that was asked for."""

    status = fields.String(required=True, validate=validate.OneOf(["done", "failed"]))
    name = fields.String(metadata={"description": "if it is done"})
    unreadable = fields.List(fields.String(), metadata={"description": "some of the files it lacks"})
    reason = fields.String(metadata={"description": "why it failed"})


class RestorePointEventSchema(Schema):
    """A restore point was made, or an attempt at one failed; it is tried again."""

    status = fields.String(required=True, validate=validate.OneOf(["done", "failed"]))
    restore_point = fields.String(metadata={"description": "the newest one's id, if it is done"})
    saved_at = time_field(allow_none=True)
    unchanged = fields.Boolean(metadata={"description": "nothing had changed, so the one before is still the newest"})
    reason = fields.String(metadata={"description": "why it failed"})


class DrillFailedEventSchema(Schema):
    """A restore point did not come back as it was made; a new one is made."""

    restore_point = fields.String(required=True, metadata={"description": "the broken one's id"})
    reason = fields.String(required=True)
    differences = fields.List(
        fields.String(), required=True, metadata={"description": "some of the files that differ, each with how"}
    )


class IdleWarningEventSchema(Schema):
    """The session sleeps soon unless it is used."""

    sleeps_at = time_field(required=True, allow_none=True)
    why = fields.String(required=True)


class BudgetEventSchema(Schema):
    """A budget of this month is nearly used up."""

    cost = fields.Float(required=True, metadata={"description": "dollars so far"})
    budget = fields.Float(required=True, metadata={"description": "dollars"})
    owner = fields.String(required=True, metadata={"description": "whose it is", "examples": ["user", "key"]})


class UnsavedWorkSchema(Schema):
    """Unsaved work of one kind."""

    count = fields.Integer(required=True)
    names = fields.List(fields.String(), required=True, metadata={"description": "some of them"})


class RiskEventSchema(Schema):
    """Unsaved work that the stop puts at risk; kinds without any are left out."""

    unsaved, uncommitted, unpushed, jobs = (fields.Nested(UnsavedWorkSchema) for _ in KINDS)
    complete = fields.Boolean(required=True, metadata={"description": "whether everything was looked at"})


class RevokedEventSchema(Schema):
    """All access of earlier epochs was revoked."""

    access_epoch = fields.Integer(required=True, metadata={"description": "the first that is valid again"})


class MessageEventSchema(MessageSchema):
    """A prompt came to another state, with its response once it has ended; its text is left out."""


class HeldEventSchema(MessageSchema):
    """The session was put to sleep before the prompt was done: it waits for the next wake or prompt."""

    session = fields.String(required=True, validate=validate.Equal(str(Status.SLEEPING)))
    detail = fields.String(required=True)


class TokenEventSchema(Schema):
    """Text of the agent's answer."""

    message_id = fields.String(required=True)
    text = fields.String(required=True)
    again = fields.Boolean(metadata={"description": "the text begins anew: what came before broke off"})


class ToolCallEventSchema(Schema):
    """The agent uses a tool."""

    message_id = fields.String(required=True)
    call_id = fields.String()
    name = fields.String()
    arguments = Arguments(optional=True)


class ToolResultEventSchema(Schema):
    """What a tool answered; a long text is cut."""

    message_id = fields.String(required=True)
    call_id = fields.String()
    name = fields.String()
    ok = fields.Boolean()
    text = fields.String()


EVENTS: Mapping[str, type[Schema]] = {
    "state": StateEventSchema,
    "phase": PhaseEventSchema,
    "backup": BackupEventSchema,
    "restore_point": RestorePointEventSchema,
    "drill_failed": DrillFailedEventSchema,
    "files_lost": FilesLostEventSchema,
    "files_restored": FilesRestoredEventSchema,
    "rolled_back": RolledBackEventSchema,
    "forked_from": ForkedFromEventSchema,
    "idle_warning": IdleWarningEventSchema,
    "budget": BudgetEventSchema,
    "risk": RiskEventSchema,
    "revoked": RevokedEventSchema,
    "message": MessageEventSchema,
    "held": HeldEventSchema,
    "token": TokenEventSchema,
    "tool_call": ToolCallEventSchema,
    "tool_result": ToolResultEventSchema,
}
"""The data of each type of a session's events."""

STREAMS: Mapping[str, Mapping[str, type[Schema]]] = {
    "SessionEvents": {kind: schema for kind, schema in EVENTS.items() if kind != "held"},
    "ChatEvents": {kind: EVENTS[kind] for kind in ("state", "token", "tool_call", "tool_result", "message", "held")},
    "FeedEvents": FEED_SCHEMAS,
}
"""The events of each stream, by type; `ChatEvents` ends with `held`, or with a `message` that is finished."""


def schema_name(schema: type[Schema]) -> str:
    """The name of a schema in the document."""
    return schema.__name__.removesuffix("Schema")


def stream_of(name: str) -> dict[str, Any]:
    """The schema of an answer that is this stream."""
    reference = {"$ref": f"#/components/schemas/{name}"}
    return {"type": "string", "contentMediaType": STREAM, "contentSchema": reference}


def stream_schema(name: str) -> dict[str, Any]:
    """The schema of a stream's events, as a list."""
    events = [
        {
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "event": {"const": kind},
                "data": {"$ref": f"#/components/schemas/{schema_name(schema)}"},
            },
            "required": ["id", "event", "data"],
        }
        for kind, schema in STREAMS[name].items()
    ]
    return {"type": "array", "items": {"oneOf": events}}
