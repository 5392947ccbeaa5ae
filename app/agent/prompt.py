"""The system message: the agent's instructions and the project's own."""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path

from app.agent.tools.sandbox_path import ToolError, Workspace

INSTRUCTIONS = "AGENTS.md"
INSTRUCTIONS_BYTES = 32_000
"""Limit of a project's instructions, which are part of every request."""


@cache
def _own() -> str:
    return Path(__file__).with_name("prompt.md").read_text(encoding="utf-8")


def system_prompt(workspace: Workspace) -> str:
    """The current system message; a project's instructions may change between two prompts."""
    instructions = project_instructions(workspace)
    return f"{_own()}\n# {INSTRUCTIONS} of this workspace\n\n{instructions}\n" if instructions else _own()


def project_instructions(workspace: Workspace) -> str:
    """The beginning of the workspace's AGENTS.md, "" if it has no readable one."""
    try:
        with workspace.resolve(INSTRUCTIONS) as place:
            fd = place.open(os.O_RDONLY)
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return ""
                return file.read(INSTRUCTIONS_BYTES).decode("utf-8", "replace").strip()
    except ToolError:
        return ""
