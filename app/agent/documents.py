"""The three documents of a conversation, checked: their owner may edit them, and a restore may bring any of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Message = dict[str, Any]
"""A message of the history (`app.agent.state` says what is in it)."""


@dataclass(frozen=True)
class Documents:
    """The three documents of a checkpoint, as JSON holds them."""

    history: list[Message] = field(default_factory=list)
    context: list[Message] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As a checkpoint travels."""
        return {"history": self.history, "context": self.context, "metadata": self.metadata}


class Unreadable(ValueError):
    """A document isn't what it should be: its owner may have edited it."""


def documents_from(data: Mapping[str, Any]) -> Documents:
    """Checked documents. Unreadable when the history isn't one; the others can be made anew from it."""
    history, context, metadata = data.get("history"), data.get("context"), data.get("metadata")
    if not isinstance(history, list) or not all(_is_message(message) for message in history):
        raise Unreadable("history is not a list of messages")
    if not isinstance(context, list) or not all(isinstance(message, dict) for message in context):
        context = []
    return Documents(history, context, metadata if isinstance(metadata, dict) else {})


def _is_message(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and all(isinstance(message.get(name), str) for name in ("id", "role", "content"))
        and isinstance(message.get("outcome", {}), dict)
    )


def is_prompt(prompt: Any) -> bool:
    """Whether this is a prompt that waits."""
    return isinstance(prompt, dict) and all(isinstance(prompt.get(name), str) for name in ("id", "content", "at"))


def listed(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def natural(value: Any) -> int:
    """The value if it is a count, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def owner(documents: Documents) -> str:
    """The session a conversation says it is of, "" when it doesn't."""
    uuid = documents.metadata.get("uuid")
    return uuid if isinstance(uuid, str) else ""


def read_documents(folder: Path) -> Documents | None:
    """The documents in a folder, None when it has no history. Unreadable when what is there isn't one."""
    read: dict[str, Any] = {}
    for name in ("history", "context", "metadata"):
        path = folder / f"{name}.json"
        try:
            read[name] = json.loads(path.read_bytes())
        except FileNotFoundError:
            if name == "history":
                return None
        except (OSError, ValueError, RecursionError) as e:
            log.warning("%s can't be read: %s", path.name, type(e).__name__)
    return documents_from(read)


def set_aside(folder: Path, mark: int) -> None:
    """Keep what can't be read under another name."""
    for name in ("history.json", "journal"):
        path = folder / name
        if path.exists():
            path.rename(path.with_name(f"{name}.unreadable-{mark}"))
