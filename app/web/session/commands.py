"""Commands as the Run tab shows them: in words, and as text alone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from app.core.execs.model import RUNNING, STREAMS
from app.web.session.endings import ending, failed
from app.web.session.terminal_text import plain


def shown(found: Mapping[str, Any]) -> dict[str, Any]:
    """A command of the API with its `line` for a shell, the `tone` and the words of its state, and its output without
    what a terminal would obey."""
    tone, words = state_of(found)
    output = {name: plain(found[name]) for name in STREAMS if name in found}
    return {**found, **output, "line": line_of(found["command"]), "tone": tone, "words": words}


def state_of(found: Mapping[str, Any]) -> tuple[str, str]:
    """What a command does, or how it ended: the tone, and in words."""
    if found["state"] == RUNNING:
        return "busy", "running"
    if failed(found):
        return "bad", ending(found)
    return "calm" if found["reason"] else "ok", ending(found)


def line_of(command: str | list[str]) -> str:
    """A command as one would type it."""
    return command if isinstance(command, str) else shlex.join(command)
