"""A request for a completion, as it may go to the provider, and its answer, as it comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from urllib3.exceptions import HTTPError

from app.gateway.calls import Call
from app.gateway.provider import Answer
from app.gateway.usage import Meter
from app.problems import Problem
from app.sessions.foreign_json import LARGE, parse

FIELDS = frozenset(
    {
        "messages",
        "model",
        "stream",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "max_tokens",
        "max_completion_tokens",
        "stop",
        "seed",
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "response_format",
        "reasoning_effort",
        "verbosity",
        "thinking",
    }
)
"""The fields that are passed on. Others are left out: they choose what is billed (`n`, `service_tier`) or what
the provider keeps (`store`, `metadata`, `user`), which is not a workspace's to choose."""

LINE_MAX = 1_048_576
"""Bytes of one line of a stream that are kept back until it is whole."""

CUT = {"message": "The model's answer was cut off.", "type": "server_error", "param": None, "code": "llm_stream_cut"}
CUT_EVENT = f"data: {json.dumps({'error': CUT})}\n\n".encode()
"""An error in the midst of a stream, in the shape OpenAI's own clients raise as an error."""


def provider_request(body: bytes, model: str) -> bytes:
    """The body to send for the `body` a workspace sent: `model` in place of its own, unless "", and the usage of a
    stream asked for. Raises a `Problem` for what is no request for a completion."""
    try:
        wanted = parse(body, LARGE)
    except ValueError as error:
        raise _invalid("The body is not valid JSON.") from error
    if not isinstance(wanted, dict) or not isinstance(wanted.get("messages"), list):
        raise _invalid("A request for a completion is a JSON object with a list of messages.")
    if any(not _is_at_hand(url) for url in _images(wanted["messages"])):
        raise _invalid("An image must be in the request itself, as a data: URL.")
    sent = {name: value for name, value in wanted.items() if name in FIELDS}
    if model:
        sent["model"] = model
    if not isinstance(sent.get("model"), str) or not sent["model"]:
        raise _invalid("No LLM_MODEL is set here, so the request must name a model.")
    if sent.get("stream"):
        sent["stream_options"] = {"include_usage": True}
    return json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _images(messages: list[Any]) -> Iterator[Any]:
    """The URLs of all images in them, whatever they are. Whoever serves the model would fetch a remote one on a
    workspace's behalf."""
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and "image_url" in part:
                image = part["image_url"]
                yield image.get("url") if isinstance(image, dict) else image


def _is_at_hand(url: Any) -> bool:
    return isinstance(url, str) and url.startswith("data:")


def _invalid(text: str) -> Problem:
    return Problem(400, "invalid_request", text)


def relay(answer: Answer, call: Call, meter: Meter) -> Iterator[bytes]:
    """The bytes of a stream, unchanged, each line as soon as it is whole. One that is cut, or that ends without
    saying so, ends with `CUT_EVENT`, in place of the broken line; `meter.done` tells which it was."""
    rest = b""
    try:
        for piece in answer.pieces():
            lines, rest = _whole_lines(rest + piece)
            if lines:
                meter.see(lines)
                yield lines
    except (HTTPError, OSError):
        # How it ended is seen below: nothing but the end that providers announce is a good one.
        pass
    if rest:
        meter.see(rest)
    if meter.done and rest:
        yield rest
    elif not meter.done and not call.gone:
        yield CUT_EVENT


def _whole_lines(text: bytes) -> tuple[bytes, bytes]:
    end = text.rfind(b"\n") + 1
    return (text, b"") if len(text) - end > LINE_MAX else (text[:end], text[end:])


def models_document(model: str) -> dict[str, Any]:
    """The list of models, in the provider's shape, where only this one can be had."""
    return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "manager"}]}
