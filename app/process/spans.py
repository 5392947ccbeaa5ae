"""A span as its users see it, whether traces are on or off."""

from __future__ import annotations

Value = str | int | float | bool
"""Of an attribute."""


class Span:
    """A span that does nothing: what callers get while traces are off. As a context manager it is the parent of all
    spans in the block, and ends with it; an exception is noted by its type alone."""

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""

    def fail(self, kind: str) -> None:
        """Note that it failed: the type of an error, or a status."""

    def end(self) -> None:
        """End a span that is no context manager. Ending it again does nothing."""


OFF = Span()
