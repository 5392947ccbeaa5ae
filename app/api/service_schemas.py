"""Schemas of the calls on services."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from app.agent.protocol import SERVICE_NAME, Restart, ServiceState
from app.api.answers import Items, Text, Time, Truth, Whole, uuid_field
from app.api.exec_schemas import cwd_field, reason_field, signal_field
from app.api.message_schemas import check_says_something
from app.api.reach import ReachQuerySchema
from app.api.request_fields import NO_NUL, Flag, QueryInteger, Strict, WholeNumber, WholeText, check_whole

SERVICE_NAME_REGEX = f"^{SERVICE_NAME.pattern}$"


class NewServiceSchema(Strict):
    name = fields.String(
        required=True, validate=WholeText(SERVICE_NAME_REGEX, "1 to 32 of A-Z a-z 0-9 _ -, a letter or digit first")
    )
    command = fields.String(
        required=True,
        validate=[check_whole, check_says_something],
        metadata={
            "pattern": f"^{NO_NUL}*\\S{NO_NUL}*$",
            "description": "for the shell, at most 10,000 bytes",
        },
    )
    cwd = cwd_field()
    port = WholeNumber(
        allow_none=True,
        validate=validate.Range(1, 65_535),
        metadata={"description": "where it listens, which it finds in `PORT`; it is `running` once it does"},
    )
    restart = fields.Enum(
        Restart,
        by_value=True,
        metadata={"description": "when it is started again after it ended by itself; by default `on_failure`"},
    )
    autostart = Flag(metadata={"description": "start it whenever the workspace starts; by default false"})


class LogQuerySchema(ReachQuerySchema):
    tail = QueryInteger(
        load_default=None, validate=validate.Range(0), metadata={"description": "only its last bytes, so many"}
    )


class ServiceSchema(Schema):
    """A service of a workspace, and how its last run ended."""

    uuid = uuid_field()
    name = Text(pattern=SERVICE_NAME_REGEX, examples=["web"])
    command = Text()
    cwd = Text()
    port = Whole("null for one that listens nowhere", null=True)
    restart = Text(enum=list(map(str, Restart)))
    autostart = Truth()
    state = Text(
        "`starting`: its port does not listen yet, or it has none and began less than a second ago; `running`; "
        "`waiting`: it ended, and is started again after a pause; "
        "`stopped`: it ended with exit code 0, or with its workspace; `failed`: it ended otherwise",
        enum=list(map(str, ServiceState)),
    )
    exit_code = Whole("null while it runs the first time, and where a signal or the `reason` ended it", null=True)
    signal = signal_field()
    reason = reason_field()
    starts = Whole("runs since a call, or the workspace, started it")
    started_at = Time(null=True)
    ended_at = Time(null=True)
    log_bytes = Whole("written to its log so far, also what is no longer kept")


class ServiceListSchema(Schema):
    services = Items(ServiceSchema, "by name")


class LogEventSchema(Schema):
    """The next of a service's log. The event's id is for `Last-Event-ID`, to go on after it."""

    text = Text()


class StoppedEventSchema(ServiceSchema):
    """The service has ended, and is not started again."""
