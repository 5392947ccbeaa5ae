"""The tool that runs a shell command, with all it starts ended in time (`runner`)."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.agent.tools import child
from app.agent.tools.confine import ToolError, Workspace
from app.agent.tools.strays import MARK, end_strays

log = logging.getLogger(__name__)

HEAD_BYTES = 12_000
TAIL_BYTES = 12_000
"""Errors stand at the end, what was done at the beginning."""

PROCESSES = 500
"""A build with one for each core has far fewer, a fork bomb soon has more."""

GRACE = 12.0
"""Seconds for the runner to end everything; longer than it tries."""

PROGRAM = Path(__file__).with_name("runner.py")

OWN_VARIABLES = ("AGENT_", "GATEWAY_", "LLM_", "PYTHON")
"""What the agent's process was given for itself; a command finds nothing of it in its environment."""


def hidden_folder(token_file: Path, folder: Path) -> Path | None:
    """What commands of a workspace in `folder` are kept from: the folder of the agent's token, where it has one of its
    own, as in a container. On a machine that is shared with the manager there is more to be read than that."""
    own = token_file.parent.absolute()
    return None if folder.absolute().is_relative_to(own) else own


def command_environment(environment: Mapping[str, str], token: str, uuid: str) -> dict[str, str]:
    """The environment of a command: the workspace's, without the agent's own variables and without the secret."""
    kept = {
        name: value
        for name, value in environment.items()
        if not name.startswith(OWN_VARIABLES) and not (token and token in value)
    }
    # Nobody is there to page, to answer or to see colours.
    return {**kept, "TERM": "dumb", "PAGER": "cat", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0", MARK: uuid}


def run_command(
    workspace: Workspace,
    stop: child.Stop,
    command: str,
    timeout: float = 0,
    *,
    limit: float,
    environment: Mapping[str, str],
    processes: int = PROCESSES,
    hidden: Path | None = None,
) -> tuple[bool, str]:
    """Run a shell command in the workspace's folder; whether it succeeded, and its output with how it ended. It can't
    read what is in the `hidden` folder, where the kernel can keep it from that."""
    if not command.strip():
        raise ToolError("`command` is empty")
    if "\0" in command:
        raise ToolError("a command can't hold a NUL")
    seconds = min(timeout, limit) if timeout > 0 else limit
    order = {"command": command, "seconds": seconds, "head": HEAD_BYTES, "tail": TAIL_BYTES, "processes": processes}
    order["hidden"] = str(hidden or "")
    try:
        fd = os.open(workspace.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise ToolError("the workspace's folder can't be opened") from None
    try:
        reply = child.ask(
            [sys.executable, "-I", "-S", str(PROGRAM)],
            json.dumps(order).encode(),
            seconds=seconds + GRACE,
            stop=stop,
            grace=GRACE,
            environment=environment,
            folder=fd,
        )
    finally:
        os.close(fd)
    try:
        answer = json.loads(reply.output)
    except ValueError:
        end_strays(environment.get(MARK, ""))
        raise ToolError("the command took down what was running it; how far it came is not known") from None
    if answer["open"]:
        _say_that_it_is_open()
    return answer["code"] == 0 and not answer["ended"], described(answer, seconds)


@functools.cache
def _say_that_it_is_open() -> None:
    """Once in a process."""
    log.warning("Commands can read the agent's token: this kernel, or what runs the container, has no Landlock")


def described(answer: Mapping[str, Any], seconds: float) -> str:
    """The runner's answer as text for the model."""
    output = answer["head"]
    if answer["omitted"]:
        output += f"\n[… {answer['omitted']} bytes left out …]\n{answer['tail']}"
    notes = []
    match answer["ended"]:
        case "late":
            notes.append(f"ended after {seconds:g} s, the time limit")
        case "stopped":
            notes.append("interrupted because the turn was stopped: look how far it came before doing it again")
        case "processes":
            notes.append("ended because it had too many processes")
        case _ if answer["code"] != 0:
            notes.append(
                f"exit status {answer['code']}" if answer["code"] > 0 else f"killed by signal {-answer['code']}"
            )
        case _ if answer["left"]:
            notes.append(f"{answer['left']} processes it left running were ended")
    if answer["survivors"]:
        notes.append(f"{answer['survivors']} processes could not be ended")
    if not output and not notes:
        return "(no output)"
    return "\n".join([*([output.rstrip("\n")] if output else []), *(f"[{note}]" for note in notes)])
