"""Work at risk when a workspace is stopped, as its agent tells it: checked and cut, for its user may write anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = ("unsaved", "uncommitted", "unpushed", "jobs")
"""Changes in editors that are not saved, files git has not committed, commits and stashes no remote has, and what runs
in terminals."""

NAMES = 5
NAME_LENGTH = 64
"""Of each kind: a record keeps them, and a sleeping session may cost 2 KB."""

MOST = 1_000_000


def read_risk(said: Mapping[str, Any]) -> dict[str, Any]:
    """`{kind: {"count", "names"}, "complete"}` of the kinds there are; empty where nothing is at risk and the agent
    looked at all. What makes no sense is left out: this must not hold a sleep up."""
    risk = {kind: told for kind in KINDS if (told := _told(said.get(kind)))}
    complete = said.get("complete") is True
    return {**risk, "complete": complete} if risk or not complete else {}


def _told(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    count, names = value.get("count"), value.get("names")
    if isinstance(count, bool) or not isinstance(count, int) or not isinstance(names, list):
        return None
    texts = [_clean(name) for name in names[:NAMES] if isinstance(name, str)]
    return {"count": min(count, MOST), "names": texts} if count > 0 else None


def _clean(name: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in name[:NAME_LENGTH])
