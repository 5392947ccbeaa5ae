"""The request for a completion as the provider gets it: what a workspace may ask of the model, and nothing else.

A provider may fetch an address, call a server of tools or read a stored file for whoever asks, with what it can reach
and in the service's name. Some read names in any case, some read more than they document. So nothing is looked for:
each object is built anew from the fields that are listed here, other fields are left out, and types that are not listed
are refused. All data must be in the request itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.core.untrusted_json import LARGE, parse
from app.http.problems import Problem

TOKENS_MAX = 10_000_000
"""The most tokens an answer may be asked to have; more than any model writes."""

REFERENCES = frozenset({"$ref", "$dynamicref", "$recursiveref"})
"""The keywords of a JSON Schema whose value is the address of another, in small letters."""

DEPTH = 100
"""How deep a schema may be nested."""


class Refused(ValueError):
    """A value that is not passed on, for a reason; `path` leads to it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[str] = []


Reader = Callable[[Any], Any]
"""Returns the value as it is passed on. Raises `Refused`."""


def scalar(value: Any) -> Any:
    """A text, a number, a truth value or null."""
    if isinstance(value, (dict, list)):
        raise Refused("must be neither an object nor a list.")
    return value


def tokens(value: Any) -> Any:
    """A number of tokens that an answer may have, or null."""
    if value is not None and not (type(value) is int and 0 < value <= TOKENS_MAX):
        raise Refused(f"must be a whole number from 1 to {TOKENS_MAX}.")
    return value


@dataclass(frozen=True)
class Text:
    """A text of this form, or null."""

    form: re.Pattern[str]
    wanted: str

    def __call__(self, value: Any) -> Any:
        if value is None or (isinstance(value, str) and self.form.fullmatch(value)):
            return value
        raise Refused(f"must be {self.wanted}.")


@dataclass(frozen=True)
class Many:
    """A list, or null."""

    each: Reader

    def __call__(self, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, list):
            raise Refused("must be a list.")
        return [_read(self.each, entry, number) for number, entry in enumerate(value)]


class Fields:
    """An object of these fields, or null; others are left out."""

    def __init__(self, **fields: Reader) -> None:
        self.fields = fields

    def __call__(self, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise Refused("must be an object.")
        return {name: _read(read, value[name], name) for name, read in self.fields.items() if name in value}


class Typed:
    """An object whose `type` says which fields it has, or null."""

    def __init__(self, **types: Fields) -> None:
        self.types: Mapping[Any, Fields] = types

    def __call__(self, value: Any) -> Any:
        if value is None:
            return None
        kind = value.get("type") if isinstance(value, dict) else None
        fields = self.types.get(kind) if isinstance(kind, str) else None
        if fields is None:
            raise Refused(f"must be an object whose `type` is one of: {', '.join(self.types)}.")
        return {"type": kind} | fields(value)


@dataclass(frozen=True)
class Either:
    """An object or a list, as `nested` reads it, or something `plain`."""

    nested: Reader
    plain: Reader = scalar

    def __call__(self, value: Any) -> Any:
        return self.nested(value) if isinstance(value, (dict, list)) else self.plain(value)


def scalars(value: Any) -> Any:
    """An object of scalars, whatever their names, or null."""
    if value is not None and not isinstance(value, dict):
        raise Refused("must be an object.")
    return value and {name: _read(scalar, entry, name) for name, entry in value.items()}


def schema(value: Any) -> Any:
    """A JSON Schema that refers to parts of itself only."""
    left = [(value, 0)]
    while left:
        part, depth = left.pop()
        if depth > DEPTH:
            raise Refused(f"must not be nested deeper than {DEPTH} times.")
        if isinstance(part, dict):
            for name, entry in part.items():
                if name.lower() in REFERENCES and isinstance(entry, str) and not entry.startswith("#"):
                    raise Refused(f'must refer to parts of itself only, as {{"{name}": "#/$defs/name"}}.')
            left += [(entry, depth + 1) for entry in part.values()]
        elif isinstance(part, list):
            left += [(entry, depth + 1) for entry in part]
    return value


IMAGE = Text(
    re.compile(r"data:image/(?:png|jpe?g|gif|webp|bmp|avif|hei[cf]);base64,[\w+/=-]*", re.ASCII),
    "an image in the request itself: a data: URL of a PNG, JPEG, GIF or WebP in base64",
)
"""Pixels: an SVG may name other files."""

DOCUMENT = Text(
    re.compile(r"data:(?:application/(?:pdf|json)|text/(?:plain|markdown|csv));base64,[\w+/=-]*", re.ASCII),
    "a file in the request itself: a data: URL of a PDF, JSON, text, Markdown or CSV in base64",
)
SOUND = Text(re.compile(r"[\w+/=-]*", re.ASCII), "sound in the request itself, in base64")

CACHED = Fields(type=scalar)
"""`cache_control`: some providers cache a prompt up to here, for less money."""

PART = Typed(
    text=Fields(text=scalar, cache_control=CACHED),
    refusal=Fields(refusal=scalar),
    image_url=Fields(
        # Not all providers take an object here.
        image_url=Either(Fields(url=IMAGE, detail=scalar), IMAGE),
        cache_control=CACHED,
    ),
    input_audio=Fields(input_audio=Fields(data=SOUND, format=scalar)),
    file=Fields(file=Fields(filename=scalar, file_data=DOCUMENT)),
)

CALL = Typed(
    function=Fields(
        id=scalar,
        index=scalar,
        function=Fields(name=scalar, arguments=scalar),
        # Gemini's models refuse a call of theirs without it.
        extra_content=Fields(google=Fields(thought_signature=scalar)),
    )
)

THOUGHT = Fields(**dict.fromkeys(("type", "id", "index", "format", "text", "summary", "data", "signature"), scalar))

MESSAGE = Fields(
    role=scalar,
    name=scalar,
    content=Either(Many(PART)),
    refusal=scalar,
    tool_calls=Many(CALL),
    tool_call_id=scalar,
    # What a model thought before; several want it back with the calls of tools that followed.
    reasoning=scalar,
    reasoning_content=scalar,
    reasoning_details=Many(THOUGHT),
    prefix=scalar,
)

SCHEMA = {"name": scalar, "description": scalar, "strict": scalar}
TOOL = Typed(function=Fields(function=Fields(**SCHEMA, parameters=schema)))
CHOSEN = Typed(function=Fields(function=Fields(name=scalar)))

REQUEST = Fields(
    messages=Many(MESSAGE),
    model=scalar,
    stream=scalar,
    tools=Many(TOOL),
    tool_choice=Either(
        Typed(**CHOSEN.types, allowed_tools=Fields(allowed_tools=Fields(mode=scalar, tools=Many(CHOSEN))))
    ),
    parallel_tool_calls=scalar,
    temperature=scalar,
    top_p=scalar,
    top_k=scalar,
    min_p=scalar,
    max_tokens=tokens,
    max_completion_tokens=tokens,
    stop=Either(Many(scalar)),
    seed=scalar,
    frequency_penalty=scalar,
    presence_penalty=scalar,
    logit_bias=scalars,
    response_format=Typed(
        text=Fields(), json_object=Fields(), json_schema=Fields(json_schema=Fields(**SCHEMA, schema=schema))
    ),
    reasoning_effort=scalar,
    verbosity=scalar,
    thinking=Fields(type=scalar, budget_tokens=scalar),
)
"""Those left out affect the bill (`n`, `service_tier`), what the provider keeps or finds (`store`, `metadata`, `user`,
`web_search_options`) or, with some servers, code (`chat_template_kwargs`)."""


@dataclass(frozen=True)
class ChatRequest:
    """What the provider is asked: its `body`, the `model` that it names, and the most tokens an answer may have, 0 if
    that is not said. `streams`: whether the workspace wants a stream; the provider always sends one, so that an answer
    that is not waited for has been counted so far."""

    body: bytes
    model: str
    most_tokens: int
    streams: bool


def provider_request(body: bytes, model: str) -> ChatRequest:
    """The request for the provider: a workspace's `body` with `model`, unless "". Raises a `Problem` for an invalid
    one."""
    try:
        wanted = parse(body, LARGE)
    except ValueError as error:
        raise _invalid("The body is not valid JSON.") from error
    if not isinstance(wanted, dict) or not isinstance(wanted.get("messages"), list):
        raise _invalid("The body must be a JSON object with `messages`, a list.")
    try:
        sent = REQUEST(wanted)
    except Refused as refused:
        raise _invalid(f"`{'.'.join(refused.path)}` {refused}") from refused
    if model:
        sent["model"] = model
    if not isinstance(sent.get("model"), str) or not sent["model"]:
        raise _invalid("The request must name a model: LLM_MODEL is not set.")
    streams = bool(sent.get("stream"))
    sent |= {"stream": True, "stream_options": {"include_usage": True}}
    return ChatRequest(
        body=json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"),
        model=sent["model"],
        most_tokens=max(sent.get("max_tokens") or 0, sent.get("max_completion_tokens") or 0),
        streams=streams,
    )


def _read(read: Reader, value: Any, name: str | int) -> Any:
    try:
        return read(value)
    except Refused as refused:
        refused.path.insert(0, str(name))
        raise


def _invalid(text: str) -> Problem:
    return Problem(400, "invalid_request", text)
