"""The system message: who the agent is, and what this project wants of it."""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path

from app.agent.tools.confine import ToolError, Workspace

INSTRUCTIONS = "AGENTS.md"
INSTRUCTIONS_BYTES = 32_000
"""Of a project's instructions: they are part of every request."""


@cache
def _own() -> str:
    return Path(__file__).with_name("prompt.md").read_text(encoding="utf-8")


def system_prompt(workspace: Workspace) -> str:
    """The system message as of now; a project's instructions may change between two prompts."""
    instructions = project_instructions(workspace)
    return f"{_own()}\n# {INSTRUCTIONS} of this workspace\n\n{instructions}\n" if instructions else _own()


def project_instructions(workspace: Workspace) -> str:
    """The beginning of the workspace's AGENTS.md, "" when it has none that can be read."""
    try:
        with workspace.place(INSTRUCTIONS) as place:
            fd = place.open(os.O_RDONLY)
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return ""
                return file.read(INSTRUCTIONS_BYTES).decode("utf-8", "replace").strip()
    except ToolError:
        return ""
