"""Counts the tokens of an answer as it passes through, without changing it.

Source: OpenAI's API reference, "Chat completions": with `stream_options.include_usage` the last chunk of a
stream carries `usage`, and the stream ends with `data: [DONE]`.
"""

from __future__ import annotations

from typing import Any

from app.core.prompts.token_usage import Tokens
from app.core.untrusted_json import LARGE, parse

BYTES_PER_TOKEN = 4
"""To estimate a prompt's tokens: English text and code have 3.5 to 4.5."""

DATA, DONE = b"data:", b"[DONE]"


class Meter:
    """Reads one answer, whole lines at a time. `model` is the one that was asked for. `done` after the stream's final
    event."""

    def __init__(self, request_bytes: int, model: str = "") -> None:
        self.model = model
        self._request_bytes = request_bytes
        self._chunks = 0
        self._counted: Tokens | None = None
        self.done = False

    def see(self, lines: bytes) -> None:
        """Read whole lines of an event stream."""
        self._chunks += lines.count(DATA)
        # JSON escapes quotes within the model's text, so this never matches there.
        if b'"usage"' in lines:
            for line in lines.splitlines():
                if b'"usage"' in line:
                    self.see_document(_data(line))
        if DONE in lines and any(_data(line) == DONE for line in lines.splitlines()):
            self.done = True

    def see_document(self, text: bytes) -> None:
        """Read the usage of a JSON object, if it has one."""
        try:
            usage = parse(text, LARGE).get("usage")
        except (ValueError, AttributeError):
            return
        if isinstance(usage, dict):
            self._counted = Tokens(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))

    def tokens(self) -> Tokens:
        """The provider's count, or else an estimate: by the bytes of the request, and one token for each chunk, as
        models stream."""
        if self._counted is not None:
            return self._counted
        prompt = self._request_bytes // BYTES_PER_TOKEN
        return Tokens(prompt, self._chunks, estimated=prompt + self._chunks)


def _data(line: bytes) -> bytes:
    """The data of a line of an event stream; the blank after the colon is optional."""
    return line.removeprefix(DATA).strip() if line.startswith(DATA) else b""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
