"""The tool that searches files; `searcher` bounds its time, whatever the expression."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

from app.agent.tools import child
from app.agent.tools.sandbox_path import ToolError, Workspace

SECONDS = 20.0
MATCHES = 200
CHARACTERS = 20_000
PROGRAM = Path(__file__).with_name("searcher.py")


def search_files(
    workspace: Workspace,
    stop: child.Stop,
    pattern: str,
    path: str = ".",
    regex: bool = False,
    glob: str = "",
    *,
    seconds: float = SECONDS,
) -> str:
    """Lines that contain `pattern`, as `path:line: text`, below a folder."""
    if not pattern:
        raise ToolError("`pattern` is empty")
    order = {"pattern": pattern, "regex": regex, "glob": glob, "matches": MATCHES, "characters": CHARACTERS}
    with workspace.resolve(path) as place:
        status = place.status()
        if status is None or not stat.S_ISDIR(status.st_mode):
            raise ToolError(f"{path} is not a folder; read_file reads a file")
        fd = place.open(os.O_RDONLY | os.O_DIRECTORY)
        try:
            reply = child.ask(
                [sys.executable, "-I", "-S", str(PROGRAM)],
                json.dumps(order).encode(),
                seconds=seconds,
                stop=stop,
                environment={"LANG": "C.UTF-8"},
                folder=fd,
            )
        finally:
            os.close(fd)
    text = reply.output.decode("utf-8", "replace").rstrip("\n")
    if reply.ended:
        why = "stopped" if reply.ended == "stopped" else f"ended after {seconds:g} s; search a smaller folder"
        raise ToolError(f"{text}\n[… {why}]".lstrip())
    if reply.code != 0:
        raise ToolError(text or "the search ended unexpectedly")
    return text
