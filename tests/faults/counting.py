"""A model that shows how often each prompt was worked on: it counts it in a file of the workspace, and looks before it
does so again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.model_server import Answer, ToolCall, last_prompt, results_since_prompt

FILE = "counted"
"""Where the workspace's folder says what was counted, a line each."""

PATTERN = re.compile(r"count (\S+)(?: in (\d+) ms)?")


def prompt(name: str, milliseconds: int = 100) -> str:
    """The prompt that has `name` counted, by a command that takes so long."""
    return f"count {name} in {milliseconds} ms"


def answer(name: str) -> str:
    """What the model says in the end."""
    return f"{name} is counted"


def counting(body: Mapping[str, Any]) -> Answer | None:
    """For the prompt "count N": appends N to a file, once. Told anything but that it was done, it looks how far that
    came, as a model should."""
    found = PATTERN.fullmatch(last_prompt(body))
    if not found:
        return None
    name, milliseconds = found[1], int(found[2] or 100)
    last = [None, *results_since_prompt(body)][-1]
    if last is None or last.startswith("0"):
        return _run(f"sleep {milliseconds / 1000:g}; echo {name} >> {FILE}")
    if last == "(no output)" or re.match(r"[1-9]", last):
        return Answer(text=answer(name))
    return _run(f"touch {FILE}; grep -cxF {name} {FILE}")


def _run(command: str) -> Answer:
    return Answer(tool_calls=(ToolCall("run_command", {"command": command}),))
