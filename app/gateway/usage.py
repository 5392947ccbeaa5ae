"""Counts the tokens of an answer as it passes through, without changing it.

Source: OpenAI's API reference, "Chat completions": with `stream_options.include_usage` the last chunk of a
stream carries `usage`, and the stream ends with `data: [DONE]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from app.core.prompts.token_usage import Tokens
from app.core.untrusted_json import LARGE, parse

BYTES_PER_TOKEN = 4
"""To estimate tokens: English text and code have 3.5 to 4.5."""

THOUGHTS_PER_SECOND = 100
"""Tokens that a model is taken to write in a second in which it sends nothing: it may think without showing that."""

PAUSE = 1.0
"""Seconds between two chunks that are no silence."""

CHUNK_BYTES = 300
"""What a chunk has beside its text, at most."""

DATA, DONE = b"data:", b"[DONE]"
CHUNK = (b"data: {", b"data:{")


class Meter:
    """Reads one answer, whole lines at a time: to a request of so many bytes, of `model`, with `most_tokens` at most if
    that was asked for (else 0). `done` after the final event; `cut` is set when the provider ended it before."""

    def __init__(
        self,
        request_bytes: int,
        model: str = "",
        most_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.done = False
        self.cut = False
        self._request_bytes = request_bytes
        self._most_tokens = most_tokens
        self._clock = clock
        self._last = clock()
        self._silence = 0.0
        self._chunks = 0
        self._bytes = 0
        self._shortest = CHUNK_BYTES
        self._counted: Tokens | None = None

    def see(self, lines: bytes) -> None:
        """Read whole lines of an event stream."""
        chunks = sum(map(lines.count, CHUNK))
        if chunks:
            now = self._clock()
            self._silence, self._last = self._silence_until(now), now
            self._chunks += chunks
            self._bytes += len(lines)
            self._shortest = min(self._shortest, len(lines) // chunks)
        # JSON escapes quotes within the model's text, so this never matches there.
        if b'"usage"' in lines:
            for data in event_data(lines):
                if b'"usage"' in data:
                    self._see_usage(data)
        if DONE in lines and DONE in event_data(lines):
            self.done = True

    def see_document(self, text: bytes) -> None:
        """Read a whole answer in one JSON object."""
        self._see_usage(text)
        self.done = True

    def tokens(self) -> Tokens:
        """The provider's count, or else an estimate. An answer whose client left counts as all that was asked for: how
        much the model had written by then is not known."""
        if self._counted is not None and self.done:
            return self._counted
        completion = self._completion()
        if self._counted is not None:
            prompt, told = self._counted.prompt, self._counted.completion
            return Tokens(prompt, max(told, completion), estimated=max(0, completion - told))
        prompt = self._request_bytes // BYTES_PER_TOKEN
        return Tokens(prompt, completion, estimated=prompt + completion)

    def _completion(self) -> int:
        """An estimate of what the model wrote."""
        seen = max(self._chunks, (self._bytes - self._chunks * self._shortest) // BYTES_PER_TOKEN)
        if self.done:
            return seen
        if self._most_tokens and not self.cut:
            return self._most_tokens
        silence = self._silence_until(self._clock())
        return seen + int(silence * THOUGHTS_PER_SECOND)

    def _silence_until(self, now: float) -> float:
        return self._silence + max(0.0, now - self._last - PAUSE)

    def _see_usage(self, text: bytes) -> None:
        try:
            usage = parse(text, LARGE).get("usage")
        except (ValueError, AttributeError):
            return
        if isinstance(usage, dict):
            self._counted = Tokens(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))


def event_data(lines: bytes) -> Iterator[bytes]:
    """The data of each event of a stream; the blank after the colon is optional."""
    for line in lines.splitlines():
        if line.startswith(DATA):
            yield line.removeprefix(DATA).strip()


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
