"""Marks the parts of a text that belong to a workspace's user: a file's name, the end of a workspace's log.

The user reads them in the session's status and events. Logs, dead letters and traces leave them out. The marks are part
of the text, so they survive a record, an event and the outcome of a Job.
"""

from __future__ import annotations

import re
from typing import Any

OPEN, CLOSE = "“", "”"

LOG_HEADING = " Last lines of its log:"
"""What follows it, to the end of the text, is private too."""

# A text may have been cut off before its closing mark.
_PRIVATE = re.compile(rf"{OPEN}[^{CLOSE}]*({CLOSE}|$)")


def private(text: str) -> str:
    """`text` in marks, as private; marks within become plain quotes."""
    return f"{OPEN}{text.translate(_PLAIN)}{CLOSE}"


def without_private(text: str) -> str:
    """`text` without its private parts: `“…”` stands for each, and nothing for the end of a log."""
    if OPEN not in text and LOG_HEADING not in text:
        return text
    return _PRIVATE.sub(f"{OPEN}…{CLOSE}", text.partition(LOG_HEADING)[0])


def all_without_private(value: Any) -> Any:
    """The same for every text in a value of JSON."""
    if isinstance(value, str):
        return without_private(value)
    if isinstance(value, dict):
        return {name: all_without_private(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [all_without_private(each) for each in value]
    return value


_PLAIN = str.maketrans({OPEN: '"', CLOSE: '"'})
