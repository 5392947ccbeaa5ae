"""Text that enters and leaves the agent: valid UTF-8, limited in length, times in one format."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime


def clean(text: str) -> str:
    """The text without lone surrogates, which JSON may contain and UTF-8 can't encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def cut(text: str, limit: int) -> str:
    """At most about `limit` characters: head and tail, with a note of the length left out between."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[len(text) - half :]}"


def moment(seconds: float) -> str:
    """A time since the epoch as ISO 8601, UTC, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(text: object) -> float | None:
    """Such a time in seconds since the epoch, None if it is invalid."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return None


def seconds_since(text: object, now: float) -> float:
    """Seconds since such a time, 0 if it is in the future or invalid."""
    at = seconds(text)
    return 0.0 if at is None else max(0.0, now - at)


def trace(error: BaseException) -> str:
    """An exception for the log: type and location, without its text, which may quote a prompt."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"
