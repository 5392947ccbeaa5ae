"""The model's tools: their schemas, and a call that never raises."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.agent.text import clean, cut, trace
from app.agent.tools import files
from app.agent.tools.child import Stop
from app.agent.tools.command import run_command
from app.agent.tools.sandbox_path import ToolError, Workspace
from app.agent.tools.search import search_files

log = logging.getLogger(__name__)

RESULT_CHARACTERS = 40_000
"""Limit of one result in the history; the tools' own limits are lower."""

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}
FLAG = {"type": "boolean"}


@dataclass(frozen=True)
class Result:
    """A call's result: whether it succeeded, and the text for the model."""

    ok: bool
    text: str


@dataclass(frozen=True)
class Tool:
    """A tool's schema and function. `run` takes arguments and stop, and returns text or (ok, text)."""

    name: str
    description: str
    properties: Mapping[str, Mapping[str, str]]
    required: tuple[str, ...]
    run: Callable[[dict[str, Any], Stop], str | tuple[bool, str]]

    def schema(self) -> dict[str, Any]:
        """The tool for the chat completions API."""
        parameters = {
            "type": "object",
            "properties": {name: dict(kind) for name, kind in self.properties.items()},
            "required": list(self.required),
            "additionalProperties": False,
        }
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


class Toolbox:
    """The tools of one workspace. `environment` is that of its commands, `command_timeout` in seconds, `hidden` a
    folder that commands can't read. `more` are tools of others."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        environment: Mapping[str, str],
        command_timeout: float,
        hidden: Path | None = None,
        more: Sequence[Tool] = (),
    ) -> None:
        tools = (*_file_tools(workspace), *_other_tools(workspace, environment, command_timeout, hidden), *more)
        self._tools = {tool.name: tool for tool in tools}

    def schemas(self) -> list[dict[str, Any]]:
        """All schemas, for a request to the model."""
        return [tool.schema() for tool in self._tools.values()]

    def call(self, name: str, arguments: str, stop: Stop) -> Result:
        """Carry out a call as the model wrote it; errors become results."""
        tool = self._tools.get(name)
        if tool is None:
            return Result(False, f"there is no tool {cut(name, 100)}; there are {', '.join(self._tools)}")
        try:
            done = tool.run(checked(tool, arguments), stop)
        except ToolError as e:
            return Result(False, clean(cut(str(e), RESULT_CHARACTERS)))
        except (OSError, MemoryError, RecursionError, ValueError) as e:
            log.error("A tool failed unexpectedly: %s, %s", name, trace(e))
            return Result(False, f"{name} failed: {type(e).__name__}")
        ok, text = done if isinstance(done, tuple) else (True, done)
        return Result(ok, clean(cut(text, RESULT_CHARACTERS)))


def checked(tool: Tool, text: str) -> dict[str, Any]:
    """A call's arguments. Raises ToolError, whose text the model reads."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError as e:
        raise ToolError(f"the arguments are not valid JSON ({e}); if they were cut off, write less at once") from None
    if not isinstance(arguments, dict):
        raise ToolError("the arguments are not a JSON object")
    # Models often send null for omitted arguments.
    arguments = {
        name: clean(value) if isinstance(value, str) else value
        for name, value in arguments.items()
        if value is not None
    }
    missing = [name for name in tool.required if name not in arguments]
    if missing:
        raise ToolError(f"missing: {', '.join(missing)}")
    for name, value in arguments.items():
        kind = tool.properties.get(name, {}).get("type")
        if kind is None:
            raise ToolError(f"{tool.name} has no argument {cut(name, 100)}; it has {', '.join(tool.properties)}")
        if not _is(value, kind):
            raise ToolError(f"{name} is not of type {kind}")
    return arguments


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or kind == "boolean":
        return isinstance(value, bool) and kind == "boolean"
    return isinstance(value, str if kind == "string" else int)


def _file_tools(workspace: Workspace) -> tuple[Tool, ...]:
    def list_files(given: dict[str, Any], stop: Stop) -> str:
        return files.list_files(workspace, given.get("path", "."), given.get("depth", 1))

    def read_file(given: dict[str, Any], stop: Stop) -> str:
        return files.read_file(workspace, given["path"], given.get("first_line", 1), given.get("last_line", 0))

    def write_file(given: dict[str, Any], stop: Stop) -> str:
        return files.write_file(workspace, given["path"], given["content"])

    def patch_file(given: dict[str, Any], stop: Stop) -> str:
        return files.patch_file(workspace, given["path"], given["old"], given["new"], given.get("all", False))

    def delete_path(given: dict[str, Any], stop: Stop) -> str:
        return files.delete_path(workspace, given["path"])

    def move_path(given: dict[str, Any], stop: Stop) -> str:
        return files.move_path(workspace, given["source"], given["target"])

    return (
        Tool(
            "list_files",
            "List a folder of the workspace, `depth` levels deep (1 unless said).",
            {"path": TEXT, "depth": NUMBER},
            (),
            list_files,
        ),
        Tool(
            "read_file",
            f"Read a text file: lines first_line to last_line, with their numbers. At most {files.READ_LINES} at once.",
            {"path": TEXT, "first_line": NUMBER, "last_line": NUMBER},
            ("path",),
            read_file,
        ),
        Tool(
            "write_file",
            "Write a whole text file, new or replaced. Folders on the way are made.",
            {"path": TEXT, "content": TEXT},
            ("path", "content"),
            write_file,
        ),
        Tool(
            "patch_file",
            "Replace `old` by `new` in a file. `old` must match exactly, without line numbers, and occur once, "
            "or `all` be true.",
            {"path": TEXT, "old": TEXT, "new": TEXT, "all": FLAG},
            ("path", "old", "new"),
            patch_file,
        ),
        Tool(
            "delete_path",
            "Delete a file, a link, or a folder with all that is in it.",
            {"path": TEXT},
            ("path",),
            delete_path,
        ),
        Tool(
            "move_path",
            "Move or rename a file or folder. Nothing is overwritten; into a folder that exists it is moved.",
            {"source": TEXT, "target": TEXT},
            ("source", "target"),
            move_path,
        ),
    )


def _other_tools(
    workspace: Workspace, environment: Mapping[str, str], limit: float, hidden: Path | None
) -> tuple[Tool, ...]:
    def search(given: dict[str, Any], stop: Stop) -> str:
        return search_files(
            workspace,
            stop,
            given["pattern"],
            given.get("path", "."),
            given.get("regex", False),
            given.get("glob", ""),
        )

    def run(given: dict[str, Any], stop: Stop) -> tuple[bool, str]:
        timeout = given.get("timeout_seconds", 0)
        return run_command(
            workspace, stop, given["command"], timeout, limit=limit, environment=environment, hidden=hidden
        )

    return (
        Tool(
            "search_files",
            "Find lines that contain `pattern` (with `regex`: that match it, Python syntax) in the text files below "
            "`path`, of names like `glob` if given. Skips .git and node_modules.",
            {"pattern": TEXT, "path": TEXT, "regex": FLAG, "glob": TEXT},
            ("pattern",),
            search,
        ),
        Tool(
            "run_command",
            f"Run a shell command in the workspace's folder, without input, for at most {limit:g} seconds. Answers "
            "with its output and exit status. All it started, in the background too, is ended when it ends; for a "
            "server, start a service.",
            {"command": TEXT, "timeout_seconds": NUMBER},
            ("command",),
            run,
        ),
    )
