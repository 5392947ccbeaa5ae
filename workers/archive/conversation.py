"""Copies the conversation in a backup into its sidecar, so that it can be read without unpacking the zip.

The zip holds all of the conversation, and a restore brings it back.
The user can change that file, so the copy is untrusted text, and bounded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

from app.core.untrusted_json import LARGE, parse
from workers.archive.format import CONVERSATION, folder_below

NAME = "history.json"
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

READ_BYTES = 8_388_608
"""Bytes; a longer file is not read: a parsed document takes several times its size of memory."""

MAX_CHARS = 262_144
"""Characters of all texts: after a loss of Redis every sidecar is read."""

FIELDS = ("id", "role", "content", "at")


def conversation(volume: int) -> dict[str, Any] | None:
    """The conversation in the volume's folder with the descriptor `volume`, None when there is none:
    `{"file", "total", "messages": [{"id", "role", "content", "at"}]}`, with the newest messages that fit, oldest first.
    `total` is None when the file is invalid or too large."""
    try:
        with folder_below(volume, CONVERSATION) as folder:
            content = _content(folder)
    except OSError:
        return None
    if content is None:
        return None
    messages = _messages(content)
    found: dict[str, Any] = {"file": f"{CONVERSATION}/{NAME}", "total": None, "messages": []}
    return found if messages is None else found | {"total": len(messages), "messages": newest(messages)}


def newest(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The last messages whose texts have at most `MAX_CHARS` characters together."""
    kept: list[dict[str, str]] = []
    left = MAX_CHARS
    for message in reversed(messages):
        left -= sum(map(len, message.values()))
        if left < 0:
            break
        kept.append(message)
    return kept[::-1]


def _content(folder: int) -> bytes | None:
    """The content of the file; empty when it is too large, None when it is not a regular file."""
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
