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

from app.agent.protocol import SERVICE_NAME, SERVICES_MOST, ServiceState
from app.core.signal_kinds import SIGNAL_PREFIX, SIGNALS


class Form(StrEnum):
    """The forms of texts; the part `pending_use` checks each by the function of this name."""

    NUMBER = "number"
    COUNT = "count"
    SIGNAL = "signal"
    """As `Signal.to_text` of app/core/sessions/model.py."""
    NOTE = "note"
    """The object of `unarchived`, which may be empty."""
    SERVICES = "services"
    """As `to_text` of app/core/sessions/reported_services.py; empty for none."""


USE_FIELDS: Mapping[str, Form] = {
    "last_activity": Form.NUMBER,
    "waiting": Form.COUNT,
    "unfinished": Form.COUNT,
    "unarchived": Form.NOTE,
    "expiry_tries": Form.COUNT,
    "disk_used_mib": Form.COUNT,
    "services": Form.SERVICES,
    **{SIGNAL_PREFIX + name: Form.SIGNAL for name in SIGNALS},
}

LONGEST_USE = 1_000
"""Bytes of a text; a longer one is ignored."""


def well_formed(name: str, text: str) -> bool:
    """Whether a text in the hash of use is valid for its field."""
    return name in USE_FIELDS and len(text.encode()) <= LONGEST_USE and _CHECKS[USE_FIELDS[name]](text)


def as_lua() -> str:
    """What the forms are checked by, as scripts have it: their part `use_fields`."""
    forms = ", ".join(f"{name} = '{form}'" for name, form in USE_FIELDS.items())
    states = ", ".join(f"{state} = true" for state in ServiceState)
    return (
        f"local USE_FIELDS = {{{forms}}}\nlocal LONGEST_USE = {LONGEST_USE}\n"
        f"local SERVICE_STATES, SERVICES_MOST = {{{states}}}, {SERVICES_MOST}\n"
    )


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


_SERVICE = re.compile(rf"{SERVICE_NAME.pattern}:([1-9][0-9]{{0,4}})?:({'|'.join(ServiceState)})")


def _is_services(text: str) -> bool:
    if not text:
        return True
    found = [_SERVICE.fullmatch(each) for each in text.split(",")]
    return len(found) <= SERVICES_MOST and all(each is not None and int(each[1] or 0) <= 65_535 for each in found)


_CHECKS: Mapping[Form, Callable[[str], bool]] = {
    Form.NUMBER: _is_number,
    Form.COUNT: _is_count,
    Form.SIGNAL: _is_signal,
    Form.NOTE: _is_note,
    Form.SERVICES: _is_services,
}
