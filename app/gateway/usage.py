"""How many tokens an answer took: read from what passes by, never changing it.

Source: OpenAI's API reference, "Chat completions": with `stream_options.include_usage` the last chunk of a
stream carries `usage`, and the stream ends with `data: [DONE]`.
"""

from __future__ import annotations

from typing import Any

from app.sessions.foreign_json import LARGE, parse
from app.sessions.spending import Tokens

BYTES_PER_TOKEN = 4
"""Of a prompt whose tokens nobody counted: English text and code have 3.5 to 4.5."""

DATA, DONE = b"data:", b"[DONE]"


class Meter:
    """Reads one answer, whole lines at a time. `done` once the stream has said that it is complete."""

    def __init__(self, request_bytes: int) -> None:
        self._request_bytes = request_bytes
        self._chunks = 0
        self._counted: Tokens | None = None
        self.done = False

    def see(self, lines: bytes) -> None:
        """Look at whole lines of an event stream."""
        self._chunks += lines.count(DATA)
        # Quotes within a text of the model are escaped, so this is never found in one.
        if b'"usage"' in lines:
            for line in lines.splitlines():
                if b'"usage"' in line:
                    self.see_document(_data(line))
        if DONE in lines and any(_data(line) == DONE for line in lines.splitlines()):
            self.done = True

    def see_document(self, text: bytes) -> None:
        """Look at a JSON object that may say how many tokens it took; anything else says nothing."""
        try:
            usage = parse(text, LARGE).get("usage")
        except (ValueError, AttributeError):
            return
        if isinstance(usage, dict):
            self._counted = Tokens(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))

    def tokens(self) -> Tokens:
        """What the provider counted; else an estimate: a token for some bytes of the request, and one for
        each chunk, which is how models stream."""
        if self._counted is not None:
            return self._counted
        prompt = self._request_bytes // BYTES_PER_TOKEN
        return Tokens(prompt, self._chunks, estimated=prompt + self._chunks)


def _data(line: bytes) -> bytes:
    """The data of a line of an event stream; a blank after the colon is optional."""
    return line.removeprefix(DATA).strip() if line.startswith(DATA) else b""


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
