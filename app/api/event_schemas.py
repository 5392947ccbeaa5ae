"""Schemas of server-sent events: the data of each type, and the streams.

OpenAPI 3.1 has no word for events. A stream is a string of the type `text/event-stream`; its `contentSchema` describes
what a parser makes of it: a list of events, each with its `id`, its type (`event`) and its `data`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields

from app.api.answers import Items, Number, Part, Text, Time, Truth, Whole, status_field, uuid_field
from app.api.exec_schemas import ExitEventSchema, OutputEventSchema
from app.api.feed_schemas import (
    FEED_SCHEMAS,
    BackupEndSchema,
    BrokenPointSchema,
    FilesLostEventSchema,
    FilesRestoredEventSchema,
    RestorePointEndSchema,
    RollbackEndSchema,
)
from app.api.file_schemas import FilesAsleepEventSchema, FilesChangedEventSchema, FilesResetEventSchema
from app.api.message_schemas import Arguments, MessageSchema
from app.api.service_schemas import LogEventSchema, StoppedEventSchema
from app.core.sessions.model import Status
from app.core.sessions.unsaved_work import KINDS

STREAM = "text/event-stream"


class RolledBackEventSchema(RollbackEndSchema):
    """The session was rolled back, or a rollback was called off and the files are as they were."""

    restored = Text("`checkpoint` if the agent undid the message, else `restore_point`", optional=True)
    saved = Text("the restore point of the state before the rollback", optional=True, null=True)
    prompts = Whole("how many prompts were marked", optional=True)


class ForkedFromEventSchema(Schema):
    """The session was created with the files of another one's restore point."""

    uuid = uuid_field()
    restore_point = Text()
    files_of = Time(null=True)


class StateEventSchema(Schema):
    """The session's state."""

    status = status_field()
    reason = Text("why it failed, or what its start waits for", null=True)
    reason_code = Text(null=True)
    backup = Text("the last backup, of a session that was deleted", optional=True)


class PhaseEventSchema(Schema):
    """A step is done: of a start, `stopped` of a sleep, `deleting` of a deletion. `restoring` and `restored` say what
    is restored, where that is known."""

    phase = Text()
    ms = Whole("since it was asked for")
    files = Whole("how many are restored", optional=True)
    bytes = Whole("of these files", optional=True)
    of = Time(optional=True)


class BackupEventSchema(BackupEndSchema):
    """A backup that was asked for."""

    unreadable = Items(fields.String(), "some of the files it lacks", optional=True)


class RestorePointEventSchema(RestorePointEndSchema):
    """A restore point was made, or an attempt at one failed; it is tried again."""

    unchanged = Truth("nothing had changed, so the one before is still the newest", optional=True)


class DrillFailedEventSchema(BrokenPointSchema):
    """A restore point did not come back as it was made; a new one is made."""

    differences = Items(fields.String(), "some of the files that differ, each with how")


class IdleWarningEventSchema(Schema):
    """The session sleeps soon unless it is used."""

    sleeps_at = Time(null=True)
    why = Text()


class BudgetEventSchema(Schema):
    """A budget of this month is nearly used up."""

    cost = Number("dollars so far")
    budget = Number("dollars")
    owner = Text("whose it is", examples=["user", "key"])


class UnsavedWorkSchema(Schema):
    """Unsaved work of one kind."""

    count = Whole()
    names = Items(fields.String(), "some of them")


class RiskEventSchema(Schema):
    """Unsaved work that the stop puts at risk; kinds without any are left out."""

    unsaved, uncommitted, unpushed, jobs = (Part(UnsavedWorkSchema, optional=True) for _ in KINDS)
    complete = Truth("whether everything was looked at")


class RevokedEventSchema(Schema):
    """All access of earlier epochs was revoked."""

    access_epoch = Whole("the first that is valid again")


class MessageEventSchema(MessageSchema):
    """A prompt came to another state, with its response once it has ended; its text is left out."""


class HeldEventSchema(MessageSchema):
    """The session was put to sleep before the prompt was done: it waits for the next wake or prompt."""

    session = Text(enum=[str(Status.SLEEPING)])
    detail = Text()


class TokenEventSchema(Schema):
    """Text of the agent's answer."""

    message_id = Text()
    text = Text()
    again = Truth("the text begins anew: what came before broke off", optional=True)


class ToolCallEventSchema(Schema):
    """The agent uses a tool."""

    message_id = Text()
    call_id = Text(optional=True)
    name = Text(optional=True)
    arguments = Arguments(optional=True)


class ToolResultEventSchema(Schema):
    """What a tool answered; a long text is cut."""

    message_id = Text()
    call_id = Text(optional=True)
    name = Text(optional=True)
    ok = Truth(optional=True)
    text = Text(optional=True)


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
    "ExecEvents": {"stdout": OutputEventSchema, "stderr": OutputEventSchema, "exit": ExitEventSchema},
    "LogEvents": {"log": LogEventSchema, "stopped": StoppedEventSchema},
    "FileEvents": {
        "reset": FilesResetEventSchema,
        "changed": FilesChangedEventSchema,
        "asleep": FilesAsleepEventSchema,
    },
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
