"""The conversation a backup holds, told beside it: to read what was said nobody should have to unpack a zip.

The agent keeps it among the workspace's files, so it is in the zip whole, and a restore brings it back. What
is told here is a copy for people and programs, from a file that is its user's to change: it is taken as text, and
bounded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

from app.sessions.foreign_json import LARGE, parse
from workers.archive.format import folder_below

FOLDER, NAME = ".session", "history.json"
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

READ_BYTES = 8_388_608
"""A longer file is only named: a parsed document takes several times its size of memory."""

TOLD_CHARS = 262_144
"""Of texts: whoever lists the backups after Redis was lost reads every sidecar."""

FIELDS = ("id", "role", "content", "at")


def conversation(root: int) -> dict[str, Any] | None:
    """What the folder with the descriptor `root` holds of a conversation, None when there is none:
    `{"file", "total", "messages": [{"id", "role", "content", "at"}]}`, the messages the newest that fit, oldest
    first; `total` is None where the file is no history or too large to be read here."""
    try:
        with folder_below(root, FOLDER) as folder:
            content = _content(folder)
    except OSError:
        return None
    if content is None:
        return None
    messages = _messages(content)
    told: dict[str, Any] = {"file": f"{FOLDER}/{NAME}", "total": None, "messages": []}
    return told if messages is None else told | {"total": len(messages), "messages": newest(messages)}


def newest(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The last messages whose texts have `TOLD_CHARS` characters together at most."""
    kept: list[dict[str, str]] = []
    left = TOLD_CHARS
    for message in reversed(messages):
        left -= sum(map(len, message.values()))
        if left < 0:
            break
        kept.append(message)
    return kept[::-1]


def _content(folder: int) -> bytes | None:
    """The file; empty when it is too large, None when it is none."""
    descriptor = os.open(NAME, FLAGS, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            return None
        return b"" if info.st_size > READ_BYTES else file.read(READ_BYTES)


def _messages(content: bytes) -> list[dict[str, str]] | None:
    try:
        found = parse(content, LARGE)
    except ValueError:
        return None
    if not isinstance(found, list) or not all(isinstance(message, dict) for message in found):
        return None
    return [{name: text for name in FIELDS if isinstance(text := message.get(name), str)} for message in found]
