"""Chat completions as they are relayed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from urllib3.exceptions import HTTPError

from app.gateway.cancellation import Call
from app.gateway.provider import Answer
from app.gateway.usage import Meter

LINE_MAX = 1_048_576
"""Bytes of an incomplete line of a stream that are held back."""

CUT = {"message": "The model's answer was cut off.", "type": "server_error", "param": None, "code": "llm_stream_cut"}
CUT_EVENT = f"data: {json.dumps({'error': CUT})}\n\n".encode()
"""An error within a stream, in the format that OpenAI's own clients raise as an exception."""


def relay(answer: Answer, call: Call, meter: Meter) -> Iterator[bytes]:
    """The bytes of a stream, unchanged, each line as soon as it is whole. A stream that is cut, or ends without its
    final event, ends with `CUT_EVENT` in place of the broken line, and `meter.cut` is set."""
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
        meter.cut = True
        yield CUT_EVENT


def _whole_lines(text: bytes) -> tuple[bytes, bytes]:
    end = text.rfind(b"\n") + 1
    return (text, b"") if len(text) - end > LINE_MAX else (text[:end], text[end:])


def models_document(model: str) -> dict[str, Any]:
    """The list of models, in the provider's format, with only this one."""
    return {"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "manager"}]}
