"""Schemas of the calls on commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from app.agent.protocol import EXEC_ID, SIDE_MOST, ExecReason
from app.api.answers import Items, OfTypes, Part, Text, Time, Truth, Whole, uuid_field
from app.api.message_schemas import check_says_something
from app.api.reach import ReachQuerySchema
from app.api.request_fields import (
    MOST_SECONDS,
    NO_NUL,
    WHOLE_REGEX,
    Flag,
    QueryInteger,
    Seconds,
    Strict,
    WholeNumber,
    WholeText,
    check_whole,
)
from app.core.agents.answers import SIGNAL_PATTERN
from app.core.execs.model import EXITED, RUNNING, STREAMS

EXEC_ID_REGEX = f"^{EXEC_ID.pattern}$"
VARIABLE_REGEX = "^[A-Za-z_][A-Za-z0-9_]*$"
MOST_INPUT = 999_999_999_999
"""Bytes of a terminal's input: more than anybody types there."""

SIGNALS = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCONT", "SIGSTOP")
"""What a command can be sent."""


class Command(fields.Raw):
    """A text for the shell, or a program and its arguments."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        words = value if isinstance(value, list) else [value]
        if not words or not all(isinstance(word, str) for word in words):
            raise ValidationError("Must be a text for the shell, or a list of a program and its arguments.")
        for word in words:
            check_whole(word)
        if isinstance(value, str):
            check_says_something(value)
        return value


def cwd_field() -> fields.String:
    """Where a command runs."""
    return fields.String(
        validate=check_whole,
        metadata={
            "pattern": WHOLE_REGEX,
            "description": "the folder, relative to the workspace's; by default that itself",
        },
    )


def signal_field() -> Text:
    return Text("the signal that ended it", null=True, pattern=f"^{SIGNAL_PATTERN.pattern}$")


def reason_field() -> Text:
    return Text(
        "why it did not end by itself: `timeout`; `killed` by a caller; `sleep` or `stopped` with its workspace; "
        "`processes`, too many; `not_begun`, the login shell ended before it; `lost`, what ran it was killed, and it "
        "is not known how far it came",
        null=True,
        enum=[*map(str, ExecReason), None],
    )


class NewWindowSchema(Strict):
    rows = WholeNumber(required=True, validate=validate.Range(1, SIDE_MOST))
    columns = WholeNumber(required=True, validate=validate.Range(1, SIDE_MOST))


class WindowSchema(Schema):
    """The size of a terminal, in characters."""

    rows = Whole()
    columns = Whole()


class NewExecSchema(Strict):
    command = Command(
        required=True,
        metadata={
            "type": ["string", "array"],
            "pattern": f"^{NO_NUL}*\\S{NO_NUL}*$",
            "items": {"type": "string", "pattern": WHOLE_REGEX},
            "minItems": 1,
            "description": "a text for the shell, or a list of a program and its arguments, which no shell reads",
        },
    )
    cwd = cwd_field()
    env = fields.Dict(
        keys=fields.String(validate=WholeText(VARIABLE_REGEX, "A-Z a-z 0-9 _, no digit first")),
        values=fields.String(validate=check_whole, metadata={"pattern": WHOLE_REGEX}),
        metadata={"description": "variables besides those of a terminal"},
    )
    stdin = fields.String(metadata={"description": "the command's input; without it, it has none"})
    timeout = Seconds(
        validate=validate.Range(0.001, MOST_SECONDS),
        metadata={
            "description": "after so many seconds it is ended with all it started; at most EXEC_TIMEOUT, the default; "
            "of one with a `tty` a day"
        },
    )
    detach = Flag(
        metadata={
            "description": "answer as soon as it runs; it keeps the session awake as a quiet job does, not as a "
            "waiting caller does"
        }
    )
    id = fields.String(
        validate=WholeText(EXEC_ID_REGEX, "1 to 64 of A-Z a-z 0-9 . _ -, no dot first"),
        metadata={"description": "the same id and command again answer the same run; generated if left out"},
    )
    tty = fields.Nested(
        NewWindowSchema,
        metadata={
            "description": "run it in a terminal of this size, which takes its input by `writeExecInput`, and whose "
            "output is `stdout`; not with `stdin`"
        },
    )

    @validates_schema
    def check_input(self, data: Mapping[str, Any], **kwargs: Any) -> None:
        """Raises `ValidationError` for a terminal whose input is given, too."""
        if {"tty", "stdin"} <= data.keys():
            raise ValidationError("Must be left out with `tty`.", "stdin")


class ExecQuerySchema(ReachQuerySchema):
    stream = fields.String(
        validate=validate.OneOf(STREAMS),
        metadata={"description": "answer with the bytes of this stream, as far as they are kept; heeds `Range`"},
    )


class EndQuerySchema(ReachQuerySchema):
    signal = fields.String(
        validate=validate.OneOf(SIGNALS),
        metadata={"description": "what to send it; by default SIGTERM, and SIGKILL five seconds later"},
    )


class InputQuerySchema(Strict):
    at = QueryInteger(
        required=True,
        validate=validate.Range(0, MOST_INPUT),
        metadata={"description": "the `input_bytes` so far: the same piece again is typed once"},
    )


class ExecInputSchema(Schema):
    """What was typed into a terminal."""

    uuid = uuid_field()
    exec_id = Text()
    input_bytes = Whole("bytes of input so far: less than was sent where the program does not read")


class ExecEntrySchema(Schema):
    """A command that runs or ran."""

    uuid = uuid_field()
    exec_id = Text(of="id")
    command = OfTypes(
        ("string", "array"), "as it was asked for; in lists, of a long one the beginning", items={"type": "string"}
    )
    cwd = Text()
    detached = Truth()
    state = Text(enum=[RUNNING, EXITED])
    exit_code = Whole("null while it runs, and where a signal or the `reason` ended it", null=True)
    signal = signal_field()
    reason = reason_field()
    left = Whole("processes that it left running when it ended, which were ended too")
    started_at = Time(null=True)
    ended_at = Time(null=True)
    ms = Whole("how long it took, or runs")
    tty = Part(WindowSchema, "the size of its terminal; null if it has none", null=True)
    input_bytes = Whole("typed into its terminal so far")
    stdout_bytes = Whole("written so far", of=lambda found: found.sizes["stdout"])
    stderr_bytes = Whole("written so far", of=lambda found: found.sizes["stderr"])


class ExecSchema(ExecEntrySchema):
    stdout = Text("of a long output the beginning and the end; bytes that are no UTF-8 are U+FFFD")
    stderr = Text()
    truncated = Truth("whether `stdout` or `stderr` leaves something out; `?stream=` has it, as far as it is kept")


class ExecListSchema(Schema):
    execs = Items(ExecEntrySchema, "newest first")


class OutputEventSchema(Schema):
    """The next of a command's output. The event's id is for `Last-Event-ID`, to go on after it."""

    text = Text()


class ExitEventSchema(ExecEntrySchema):
    """The command has ended."""
