"""Runs shell commands as the workspace's own: with an environment of theirs, without the agent's token, and `runner`
ends every process that one starts. The tool of that name, and whatever else runs programs of a workspace's choosing."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from app.agent.tools import child
from app.agent.tools.orphans import MARK, kill_orphans
from app.agent.tools.runner import shell
from app.agent.tools.sandbox_path import ToolError, Workspace, open_root
from app.volume.environment import of_commands

log = logging.getLogger(__name__)

HEAD_BYTES = 12_000
TAIL_BYTES = 12_000
"""Output usually has errors at its end and the steps before them at its beginning."""

PROCESSES = 500
"""A parallel build has far fewer, a fork bomb soon has more."""

GRACE = 12.0
"""Seconds for the runner to end everything; more than its own limit."""

PROGRAM = Path(__file__).with_name("runner.py")

WITHOUT_TERMINAL = {"TERM": "dumb", "PAGER": "cat", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0"}
"""No pager, no questions, no colours."""

IN_TERMINAL = {**dict.fromkeys(WITHOUT_TERMINAL), "TERM": "xterm-256color"}
"""The same variables of a command in a terminal, None for those it does not have."""

ANSWER: Mapping[str, type] = {
    **dict.fromkeys(("code", "omitted", "left", "survivors"), int),
    **dict.fromkeys(("ended", "head", "tail"), str),
    **dict.fromkeys(("open", "begun"), bool),
}
"""The types of what the runner answers."""


def hidden_folder(token_file: Path, folder: Path) -> Path | None:
    """The folder commands must not read: that of the agent's token, unless the workspace is below it. In a container it
    isn't; on a machine shared with the manager it is, and hiding that folder alone would protect nothing."""
    own = token_file.parent.absolute()
    return None if folder.absolute().is_relative_to(own) else own


def command_environment(environment: Mapping[str, str], token: str, uuid: str) -> dict[str, str]:
    """The environment of a command: the agent's, without its own variables and its token."""
    return {**of_commands(environment, token), **WITHOUT_TERMINAL, MARK: uuid}


def order_of(
    argv: Sequence[str],
    cwd: str = ".",
    *,
    seconds: float,
    hidden: Path | None,
    mark: str = "",
    added: Mapping[str, str] = MappingProxyType({}),
    head: int = 0,
    tail: int = 0,
    processes: int = PROCESSES,
    login: bool = True,
) -> dict[str, Any]:
    """An order for `runner`, without streams. `mark` is put into its processes' environment, `added` into the
    command's."""
    return {
        "argv": list(argv),
        "cwd": cwd,
        "environment": {MARK: mark} if mark else {},
        "added": dict(added),
        "seconds": seconds,
        "head": head,
        "tail": tail,
        "processes": processes,
        "hidden": str(hidden or ""),
        "login": login,
        "streams": None,
        "terminal": None,
    }


def in_terminal(order: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The order, carried out in the terminal at this path."""
    return {**order, "environment": {**order["environment"], **IN_TERMINAL}, "terminal": path}


def run_shell(
    command: str,
    folder: Path,
    *,
    seconds: float,
    environment: Mapping[str, str],
    hidden: Path | None,
    stop: child.Stop = lambda: False,
    processes: int = PROCESSES,
    head: int = HEAD_BYTES,
    grace: float = GRACE,
    login: bool = False,
) -> Mapping[str, Any]:
    """The answer of `runner` to a shell command in this folder, in a login shell with `login`. Where the kernel
    supports that, the command can't read the `hidden` folder. Raises `ToolError`."""
    order = order_of(
        [shell(), "-c", command],
        seconds=seconds,
        hidden=hidden,
        head=head,
        tail=TAIL_BYTES,
        processes=processes,
        login=login,
    )
    fd = open_root(folder)
    try:
        reply = child.ask(
            [sys.executable, "-I", "-S", str(PROGRAM)],
            json.dumps(order).encode(),
            seconds=seconds + grace,
            stop=stop,
            grace=grace,
            environment=environment,
            folder=fd,
        )
    finally:
        os.close(fd)
    answer = read_answer(reply.output) if reply.code == 0 else None
    if answer is None:
        kill_orphans(environment.get(MARK, ""))
        raise ToolError("the command ended the process that ran it; it is not known how far it came")
    if answer["open"]:
        _warn_of_readable_token()
    return answer


def read_answer(output: bytes) -> Mapping[str, Any] | None:
    """A runner's answer; None if it gave none. A command may write one in its place: that is at worst wrong, and has
    the types of a true one."""
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(answer, dict) and {name: type(value) for name, value in answer.items()} == ANSWER
    return answer if whole else None


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
    """Run a shell command in the workspace's folder; whether it succeeded, and its output with notes on its end.
    `hidden` as for `run_shell`."""
    if not command.strip():
        raise ToolError("`command` is empty")
    if "\0" in command:
        raise ToolError("`command` must not contain a NUL")
    seconds = min(timeout, limit) if timeout > 0 else limit
    answer = run_shell(
        command,
        workspace.folder,
        seconds=seconds,
        environment=environment,
        hidden=hidden,
        stop=stop,
        processes=processes,
        # VS Code does so for its terminals: what an installer put into PATH there, the agent finds too.
        login=True,
    )
    return answer["code"] == 0 and answer["begun"] and not answer["ended"], described(answer, seconds)


@functools.cache
def _warn_of_readable_token() -> None:
    """Warn once in a process."""
    log.warning("Commands can read the agent's token: the kernel or the container runtime has no Landlock")


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
        case _ if not answer["begun"]:
            notes.append("not run: the login shell ended before it; look at ~/.profile or ~/.bash_profile")
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
