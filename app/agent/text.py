"""Text as it leaves and enters the agent: always valid UTF-8, never longer than said, times in one form."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime


def clean(text: str) -> str:
    """The text without what UTF-8 can't hold: JSON may carry half a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8")


def cut(text: str, limit: int) -> str:
    """At most about `limit` characters: its head and its tail, with a note of what is missing between."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[len(text) - half :]}"


def moment(seconds: float) -> str:
    """A time since the epoch as ISO 8601, UTC, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_since(text: object, now: float) -> float:
    """The age of such a time, 0 for one that lies ahead, or for anything else."""
    try:
        return max(0.0, now - datetime.fromisoformat(str(text)).timestamp())
    except (ValueError, OverflowError):
        return 0.0


def trace(error: BaseException) -> str:
    """An exception for the log: its type and where it was raised. Its text may quote a prompt, so that is left out."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"
