"""The fields about a session's use, and which texts are valid for them.

The gateway may not write records, so it writes these fields to the hash `session:{uuid}:use`; the record's next change
copies them. A compromised gateway may write anything there, so Python (`well_formed`) and the scripts (their part
`pending_use`) take only these fields, and only texts of their form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum

from app.core.signal_kinds import SIGNAL_PREFIX, SIGNALS


class Form(StrEnum):
    """The forms of texts; the part `pending_use` checks each by the function of this name."""

    NUMBER = "number"
    COUNT = "count"
    SIGNAL = "signal"
    """As `Signal.to_text` of app/core/sessions/model.py."""
    NOTE = "note"
    """The object of `unarchived`, which may be empty."""


USE_FIELDS: Mapping[str, Form] = {
    "last_activity": Form.NUMBER,
    "waiting": Form.COUNT,
    "unfinished": Form.COUNT,
    "unarchived": Form.NOTE,
    "expiry_tries": Form.COUNT,
    "disk_used_mib": Form.COUNT,
    **{SIGNAL_PREFIX + name: Form.SIGNAL for name in SIGNALS},
}

LONGEST_USE = 1_000
"""Bytes of a text; a longer one is ignored."""


def well_formed(name: str, text: str) -> bool:
    """Whether a text in the hash of use is valid for its field."""
    return name in USE_FIELDS and len(text.encode()) <= LONGEST_USE and _CHECKS[USE_FIELDS[name]](text)


def as_lua() -> str:
    """`USE_FIELDS` and `LONGEST_USE` as scripts have them: their part `use_fields`."""
    forms = ", ".join(f"{name} = '{form}'" for name, form in USE_FIELDS.items())
    return f"local USE_FIELDS = {{{forms}}}\nlocal LONGEST_USE = {LONGEST_USE}\n"


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"\d+\.?\d*", text, re.ASCII)) and float(text) < 1e11


def _is_count(text: str) -> bool:
    return text.isdecimal() and _is_number(text)


def _is_signal(text: str) -> bool:
    timed = re.fullmatch(r"(\S+) (\S+)(?: [^\x00-\x1f\x7f]*)?", text, re.ASCII)
    return all(map(_is_number, timed.groups())) if timed else _is_number(text)


def _is_note(text: str) -> bool:
    try:
        note = json.loads(text)
    except ValueError:
        return False
    if not isinstance(note, dict) or not note:
        return note == {}
    since: object = note.get("since")
    return isinstance(since, int | float) and 0 <= since < 1e11 and isinstance(note.get("reason"), str)


_CHECKS: Mapping[Form, Callable[[str], bool]] = {
    Form.NUMBER: _is_number,
    Form.COUNT: _is_count,
    Form.SIGNAL: _is_signal,
    Form.NOTE: _is_note,
}
