"""Chat completions: the request as sent to the provider, and the relayed answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from urllib3.exceptions import HTTPError

from app.core.untrusted_json import LARGE, parse
from app.gateway.cancellation import Call
from app.gateway.provider import Answer
from app.gateway.usage import Meter
from app.problems import Problem

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
"""The fields that are passed on. A workspace must not choose the others: they affect billing (`n`, `service_tier`) or
what the provider stores (`store`, `metadata`, `user`)."""

LINE_MAX = 1_048_576
"""Bytes of an incomplete line of a stream that are held back."""

CUT = {"message": "The model's answer was cut off.", "type": "server_error", "param": None, "code": "llm_stream_cut"}
CUT_EVENT = f"data: {json.dumps({'error': CUT})}\n\n".encode()
"""An error within a stream, in the format that OpenAI's own clients raise as an exception."""


def provider_request(body: bytes, model: str) -> tuple[bytes, str]:
    """The body for the provider, and the model it names: a workspace's `body` with `model`, unless "", and with the
    usage of a stream asked for. Raises a `Problem` for an invalid request."""
    try:
        wanted = parse(body, LARGE)
    except ValueError as error:
        raise _invalid("The body is not valid JSON.") from error
    if not isinstance(wanted, dict) or not isinstance(wanted.get("messages"), list):
        raise _invalid("The body must be a JSON object with `messages`, a list.")
    if any(not _is_at_hand(url) for url in _images(wanted["messages"])):
        raise _invalid("Images must be in the request itself, as data: URLs.")
    sent = {name: value for name, value in wanted.items() if name in FIELDS}
    if model:
        sent["model"] = model
    if not isinstance(sent.get("model"), str) or not sent["model"]:
        raise _invalid("The request must name a model: LLM_MODEL is not set.")
    if sent.get("stream"):
        sent["stream_options"] = {"include_usage": True}
    return json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"), sent["model"]


def _images(messages: list[Any]) -> Iterator[Any]:
    """The URLs of all images. The provider would fetch a remote one on a workspace's behalf."""
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
    """The bytes of a stream, unchanged, each line as soon as it is whole. A stream that is cut, or ends without its
    final event, ends with `CUT_EVENT` in place of the broken line; then `meter.done` is False."""
    rest = b""
    try:
        for piece in answer.pieces():
            lines, rest = _whole_lines(rest + piece)
            if lines:
                meter.see(lines)
                yield lines
    except (HTTPError, OSError):
        # Handled below: only a stream with its final event has ended well.
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
    """The list of models, in the provider's format, with only this one."""
    return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "manager"}]}
