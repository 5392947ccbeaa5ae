"""Assembles a completion from its stream, for a client that asked for no stream.

`openai` has a class that does so, but its import takes most of a second and 36 MB of each of the gateway's processes.
Source of the format: OpenAI's API reference, "Chat completions", "Streaming".
"""

from __future__ import annotations

from typing import Any

from app.core.untrusted_json import LARGE, parse
from app.gateway.usage import DONE, event_data

JOINED = frozenset({"content", "refusal", "reasoning", "reasoning_content", "arguments", "text", "summary"})
"""The fields whose texts come in pieces. Others come once, or whole each time."""

STREAM_MAX = 134_217_728
"""Bytes of a stream: half a million chunks of a token each."""


class Unreadable(ValueError):
    """The stream is no completion."""


class Pieces(list[str]):
    """A text as it came."""


class Items(dict[int, Any]):
    """A list, by index."""


class Assembly:
    """The completion that the chunks so far make."""

    def __init__(self) -> None:
        self._size = 0
        self._merged: dict[str, Any] = {}

    def add(self, lines: bytes) -> None:
        """Add whole lines of the stream. Raises `Unreadable`."""
        self._size += len(lines)
        if self._size > STREAM_MAX:
            raise Unreadable("longer than any answer")
        for data in event_data(lines):
            if data != DONE:
                self._add_chunk(data)

    def _add_chunk(self, data: bytes) -> None:
        try:
            chunk = parse(data, LARGE)
            if not isinstance(chunk, dict) or "error" in chunk:
                raise Unreadable("an event that is no chunk")
            _merge(self._merged, chunk)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise Unreadable("an event that is no chunk") from error

    def document(self) -> dict[str, Any]:
        """The completion, as if it had not been streamed. Raises `Unreadable`."""
        try:
            whole: dict[str, Any] = _joined(self._merged)
            for choice in whole["choices"]:
                choice["message"] = {"role": "assistant", "content": None} | choice.pop("delta", {})
                for call in choice["message"].get("tool_calls") or ():
                    call.pop("index", None)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise Unreadable("no completion") from error
        if not whole["choices"]:
            raise Unreadable("no choice")
        return whole | {"object": "chat.completion"}


def _merge(into: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if value is None:
            into.setdefault(name, None)
        elif isinstance(value, dict):
            into[name] = into.get(name) or {}
            _merge(into[name], value)
        elif isinstance(value, list):
            into[name] = into.get(name) or Items()
            _merge_items(into[name], value)
        elif isinstance(value, str) and name in JOINED:
            into[name] = into.get(name) or Pieces()
            into[name].append(value)
        else:
            into[name] = value


def _merge_items(into: Items, part: list[Any]) -> None:
    for value in part:
        index = value.get("index") if isinstance(value, dict) else None
        if type(index) is int:
            _merge(into.setdefault(index, {}), value)
        else:
            into[len(into)] = value


def _joined(value: Any) -> Any:
    if isinstance(value, Pieces):
        return "".join(value)
    if isinstance(value, Items):
        return [_joined(value[index]) for index in sorted(value)]
    if isinstance(value, dict):
        return {name: _joined(entry) for name, entry in value.items()}
    return value
