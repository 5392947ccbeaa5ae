"""The messages of a conversation in answers.

They come from a workspace, whose user may have written anything there. A documented field of another type than the
document says is left out, so that nobody's client fails on it; fields that are not documented are passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.core.sessions.model import iso
from app.core.untrusted_json import SMALL, parse

TYPES: Mapping[str, type] = {
    **dict.fromkeys(("id", "role", "content", "state", "call_id", "name"), str),
    "ok": bool,
    "usage": dict,
    "tool_calls": list,
    "outcome": dict,
}
ENDS = ("processed", "failed")

Entry = Mapping[str, Any]


def shown_entry(entry: Entry) -> dict[str, Any]:
    """A message. The agent keeps the arguments of a tool call as the model wrote them; here they are as in events."""
    shown = _without_wrong(entry, TYPES)
    if "tool_calls" in shown:
        shown["tool_calls"] = [_shown_call(call) for call in shown["tool_calls"] if _is_call(call)]
    if "outcome" in shown:
        shown["outcome"] = _without_wrong(
            shown["outcome"], {"status": str, "response": dict, "reason": str, "code": str}
        )
        if shown["outcome"].get("status") not in ENDS:
            del shown["outcome"]
    if shown.get("at") is not None:
        shown["at"] = _time(shown["at"])
    return shown


def _without_wrong(values: Entry, kinds: Mapping[str, type]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(value, kinds.get(name, object))}


def _is_call(call: Any) -> bool:
    return isinstance(call, dict) and isinstance(call.get("call_id"), str) and isinstance(call.get("name"), str)


def _shown_call(call: Entry) -> dict[str, Any]:
    return {"call_id": call["call_id"], "name": call["name"], "arguments": arguments_of(call.get("arguments"))}


def arguments_of(written: Any) -> dict[str, Any] | str:
    """The object that the arguments of a tool call are, or their text if they are none."""
    if isinstance(written, dict):
        return written
    if not isinstance(written, str):
        return {}
    try:
        found = parse((written or "{}").encode("utf-8", "surrogatepass"), SMALL)
    except ValueError:
        return written
    return found if isinstance(found, dict) else written


def _time(written: Any) -> str | None:
    """A time as the API writes it, None for anything else."""
    try:
        return iso(datetime.fromisoformat(str(written)).timestamp())
    except (ValueError, OverflowError):
        return None
