"""JSON that somebody else wrote, read without letting them choose what that costs.

Text is cheap to hold, values are not: each `{}` of a list is 3 bytes to send and 72 to hold, so a document of 64 MiB
takes 1.7 GiB. So the values are counted in the bytes, before any of them is made.
"""

from __future__ import annotations

import json
from typing import Any

VALUE_BYTES = 100
"""What a value takes beside its text: an empty object 64, and its place in a list 8."""

SMALL = 1_000
"""Values in a document of a few fields."""

LARGE = 250_000
"""Values in a part of a conversation: 1 MB of messages as short as they can be."""


class TooManyValues(ValueError):
    """The document has more values than it may."""

    def __init__(self, most: int) -> None:
        super().__init__(f"The JSON document has more than {most} values.")


def count_values(data: bytes, most: int) -> int:
    """At least as many as there are objects, lists, texts, and other values in the document; some number above `most`
    where there are more than that. Takes the document's own size in memory, and not even that for one that has few."""
    raw = sum(map(data.count, (b'"', b"{", b"[", b","))) + 1
    if raw <= most:
        return raw
    # Most of these stand in texts. Without what is escaped each quote begins or ends a text.
    bare = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    texts = bare.count(b'"') // 2
    if texts > most:
        return texts
    outside = bare.split(b'"')[::2]
    return texts + sum(part.count(b"{") + part.count(b"[") + part.count(b",") for part in outside) + 1


def parse(data: bytes, most: int) -> Any:
    """The document, of `most` values at most, in UTF-8. Raises `TooManyValues`, and `ValueError` for what is no JSON
    or nested too deep."""
    if count_values(data, most) > most:
        raise TooManyValues(most)
    try:
        return json.loads(data.decode("utf-8", "surrogatepass"))
    except RecursionError as error:
        raise ValueError("The JSON document is nested too deep.") from error
