"""Unsaved work that a stop would put at risk. The agent reports it and may lie, so the report is checked and cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = ("unsaved", "uncommitted", "unpushed", "jobs")
"""Unsaved changes in editors, uncommitted files, commits and stashes that no remote has, and programs in terminals."""

NAMES = 5
NAME_LENGTH = 64
"""Kept of each kind: they are in the record, and a sleeping session may cost 2 KB."""

MOST = 1_000_000


def read_unsaved_work(report: Mapping[str, Any]) -> dict[str, Any]:
    """`{kind: {"count", "names"}, "complete"}` of the reported kinds; empty when nothing is at risk and the agent
    checked everything. Invalid parts are left out: they must not delay a sleep."""
    risk = {kind: found for kind in KINDS if (found := _read_kind(report.get(kind)))}
    complete = report.get("complete") is True
    return {**risk, "complete": complete} if risk or not complete else {}


def _read_kind(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    count, names = value.get("count"), value.get("names")
    if isinstance(count, bool) or not isinstance(count, int) or not isinstance(names, list):
        return None
    texts = [_clean(name) for name in names[:NAMES] if isinstance(name, str)]
    return {"count": min(count, MOST), "names": texts} if count > 0 else None


def _clean(name: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in name[:NAME_LENGTH])
