"""What a session does now, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.look.words import restored_files

TEXTS = {
    "created": "It starts for the first time.",
    "waking": "Its editor and its agent start.",
    "active": "Its editor and its agent run.",
    "sleeping": "Nothing runs, and its files are kept. Opening it or a prompt wakes it.",
    "terminating": "It is being deleted.",
    "terminated": "It was deleted. What is kept of it is listed under Backups.",
    "failed": "It stays as it is until it is woken or deleted.",
}


ARCHIVED = (
    "Nothing runs, and its files are in the archive. Opening it or a prompt restores them first, which takes longer."
)


def state_in_words(found: Mapping[str, Any]) -> str:
    """One sentence for the answer of `GET /session/{uuid}`; a reason, where there is one, comes besides."""
    status = found["session"]["status"]
    if status == "sleeping" and found["replicas"]:
        return "Its processes are about to end."
    if status == "sleeping" and found["session"].get("tier") == "archived":
        return ARCHIVED
    if brings := found["session"].get("restoring"):
        return f"Restoring {restored_files(brings)}."
    return TEXTS.get(status, "")
