"""Schemas of the calls on prompts and the conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate

from app.api.answers import Items, Object, OfTypes, Part, Text, Time, Truth, Whole, uuid_field
from app.api.conversation_entries import shown_entry
from app.api.request_fields import MESSAGE_ID_REGEX, Strict, WholeText
from app.core.prompts.inbox import Prompt, State


def check_says_something(text: str) -> None:
    """Raises `ValidationError` for a blank text, and for a lone surrogate, which UTF-8 can't encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError("Must not contain lone surrogates.") from error
    if not text.strip():
        raise ValidationError("Must not be blank.")


class PromptSchema(Strict):
    message = fields.String(
        required=True,
        validate=[validate.Length(1), check_says_something],
        metadata={"pattern": "\\S", "description": "the prompt for the agent; at most PROMPT_MAX_BYTES bytes of UTF-8"},
    )
    id = fields.String(
        validate=WholeText(MESSAGE_ID_REGEX, "1 to 64 of A-Z a-z 0-9 . _ -"),
        metadata={"description": "the same id and message again are the same prompt; generated if left out"},
    )


def state_field() -> Text:
    return Text(enum=[str(state) for state in State])


def fields_of(uuid: str, prompt: Prompt) -> dict[str, Any]:
    """Of what `MessageSchema` makes an answer."""
    return vars(prompt) | {"uuid": uuid}


def response_of(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What came of a prompt that has ended; of a failed one there may be nothing."""
    if message["state"] is State.FAILED:
        return message["response"] or None
    return message["response"] if message["state"] is State.PROCESSED else None


class ChatSchema(Schema):
    uuid = uuid_field()
    message_id = Text()
    state = state_field()
    status = Text(enum=["processed", "failed", "queued"])
    pod_response = Object(
        "the agent's answer: text, steps, tool_calls, usage; if it failed, what there was by then", optional=True
    )
    reason = Text("why it failed", optional=True)
    message = Text("what a prompt waits for that is not processed yet", optional=True)


class MessageSchema(Schema):
    """A prompt, made of its fields and its session's uuid."""

    uuid = uuid_field()
    message_id = Text(of="id")
    state = state_field()
    message = Text("the prompt, until it is finished", of="text", null=True)
    response = Object(
        "text, steps, tool_calls, usage; if it failed, what there was by then, or null", of=response_of, null=True
    )
    reason = Text(null=True)
    created_at = Time(null=True)
    delivered_at = Time(null=True)
    processed_at = Time(null=True)
    rolled_back_at = Time("when a rollback undid what it did; it does not run again", optional=True, null=True)


class Arguments(OfTypes):
    """The arguments of a tool call, which a model wrote."""

    def __init__(self, **options: Any) -> None:
        text = "an object; a text where it was cut, or is no JSON object"
        super().__init__(("object", "string"), text, **options)


class ToolUseSchema(Schema):
    call_id = Text("the result has the same")
    name = Text()
    arguments = Arguments(optional=True)


class OutcomeSchema(Schema):
    """How a turn ended."""

    status = Text(enum=["processed", "failed"])
    response = Object("as in `GET …/messages/{message_id}`", optional=True)
    reason = Text("why it failed", optional=True)
    code = Text("why it failed, as a code", optional=True, examples=["step_limit"])


class ConversationEntrySchema(Schema):
    """One message, as the agent keeps it; the workspace's user may have changed that."""

    class Meta:
        unknown = INCLUDE

    id = Text("the prompt's id, the same for all messages of a turn", optional=True)
    role = Text(optional=True, examples=["user", "assistant", "tool"])
    content = Text(optional=True)
    at = Time(optional=True, null=True)
    state = Text("of a prompt that the agent has not begun", optional=True)
    tool_calls = Items(ToolUseSchema, "of an assistant", optional=True)
    usage = Object("of an assistant: the model's tokens, as the model counts them", optional=True)
    call_id = Text("of a tool: the call it answers", optional=True)
    name = Text("of a tool", optional=True)
    ok = Truth("of a tool: whether it worked", optional=True)
    outcome = Part(OutcomeSchema, "of the last message of a turn", optional=True)


class Entries(Items):
    """Messages as a workspace wrote them: what is documented is checked, all else passed on."""

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> list[Any]:
        return [shown_entry(entry) for entry in value]


class ConversationSchema(Schema):
    uuid = uuid_field()
    total = Whole("messages, without the prompts that the agent has not begun")
    messages = Entries(ConversationEntrySchema)
    next_cursor = Text(null=True)
