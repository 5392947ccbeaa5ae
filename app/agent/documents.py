"""The three documents of a conversation, validated: users may edit them, and a restore may replace them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Message = dict[str, Any]
"""A message of the history (`app.agent.state` describes its fields)."""


@dataclass(frozen=True)
class Documents:
    """The three documents of a checkpoint, as JSON holds them."""

    history: list[Message] = field(default_factory=list)
    context: list[Message] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)


class Unreadable(ValueError):
    """A document is invalid: a user may have edited it."""


def documents_from(data: Mapping[str, Any]) -> Documents:
    """Validated documents. Unreadable if the history is invalid; the others can be rebuilt from it."""
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
    """Whether this is a queued prompt."""
    return isinstance(prompt, dict) and all(isinstance(prompt.get(name), str) for name in ("id", "content", "at"))


def listed(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def strings(value: Any) -> list[str]:
    """The strings in a list, none if the value isn't one."""
    return [each for each in listed(value) if isinstance(each, str)]


def natural(value: Any) -> int:
    """The value if it is a non-negative integer, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def owner(documents: Documents) -> str:
    """The uuid of the session in a conversation's metadata, "" if there is none."""
    uuid = documents.metadata.get("uuid")
    return uuid if isinstance(uuid, str) else ""


def read_documents(folder: Path) -> Documents | None:
    """The documents in a folder, None if it has no history. Raises Unreadable."""
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
    """Rename files that can't be read, to keep them."""
    for name in ("history.json", "journal"):
        path = folder / name
        if path.exists():
            path.rename(path.with_name(f"{name}.unreadable-{mark}"))
