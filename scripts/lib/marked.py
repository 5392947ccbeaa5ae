"""Parts of the docs that a script writes: what stands between two markers."""

from __future__ import annotations


class MarkersMissing(Exception):
    """A text has no place for the part: it lacks a marker, or has one twice."""


def replaced(text: str, page: str, begin: str, end: str, part: str) -> str:
    """`text`, of the `page`, with `part` between its markers; raises `MarkersMissing`."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise MarkersMissing(f"{page} must have these two lines, once each, in this order:\n{begin}\n{end}")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{part}\n{end}{rest.partition(end)[2]}"
