"""Parses untrusted JSON with bounded memory.

Text is cheap to hold, values are not: each `{}` of a list is 3 bytes to send and 72 to hold, so a document of 64 MiB
takes 1.7 GiB. So the values are counted in the bytes before any is created.
"""

from __future__ import annotations

import json
import re
from typing import Any

VALUE_BYTES = 100
"""Memory of a value besides its text: an empty object 64, and its place in a list 8."""

SMALL = 1_000
"""Values in a document of a few fields."""

LARGE = 250_000
"""Values in a part of a conversation: 1 MB of the shortest possible messages."""


LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, which JSON may have as an escape; neither UTF-8 nor a script of Redis takes it."""


class TooManyValues(ValueError):
    """The document has too many values."""

    def __init__(self, most: int) -> None:
        super().__init__(f"The JSON document has more than {most} values.")


def count_values(data: bytes, most: int) -> int:
    """An upper bound of the number of values in the document, or some number above `most` when there may be more. Takes
    at most the document's own size in memory."""
    raw = sum(map(data.count, (b'"', b"{", b"[", b","))) + 1
    if raw <= most:
        return raw
    # Most of these are within texts. Without escaped quotes, each quote begins or ends a text.
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    texts = bare.count(b'"') // 2
    if texts > most:
        return texts
    outside = bare.split(b'"')[::2]
    return texts + sum(part.count(b"{") + part.count(b"[") + part.count(b",") for part in outside) + 1


def parse(data: bytes, most: int) -> Any:
    """The document, in UTF-8. Raises `TooManyValues` above `most`, and `ValueError` for invalid or too deep JSON."""
    if count_values(data, most) > most:
        raise TooManyValues(most)
    try:
        return json.loads(data.decode("utf-8", "surrogatepass"))
    except RecursionError as error:
        raise ValueError("The JSON document is nested too deep.") from error


def without_lone_surrogates(document: Any) -> Any:
    """A parsed document, changed in place, with `?` for each lone surrogate in its texts and names."""
    whole = [document]
    left: list[Any] = [whole]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            for name in [name for name in part if LONE_SURROGATE.search(name)]:
                part[_replaced(name)] = part.pop(name)
        for place, value in part.items() if isinstance(part, dict) else enumerate(part):
            if isinstance(value, str):
                part[place] = _replaced(value)
            elif isinstance(value, dict | list):
                left.append(value)
    return whole[0]


def _replaced(text: str) -> str:
    return LONE_SURROGATE.sub("?", text)
