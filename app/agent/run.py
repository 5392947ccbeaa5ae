"""Runs a shell command in the workspace as the service's own agent does: `$AGENT_RUN COMMAND`, for a program that works
on prompts. It prints what came of it, and its exit status says whether the command succeeded.

The command gets an environment of its own and no sight of the workspace's token, and ends with all that it started:
after AGENT_COMMAND_TIMEOUT, or when this process is told to end.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.agent.settings import BadSetting, settings_from
from app.agent.tools.command import command_environment, hidden_folder, run_command
from app.agent.tools.sandbox_path import ToolError, Workspace

ROOT = Path(__file__).resolve().parents[2]

HOME = "WORKSPACE_HOME"
"""The user's home, in the environment of a program: HOME is the program's own."""


def command_line() -> str:
    """What a program finds in AGENT_RUN. Neither its folder nor a home may stand in for our modules."""
    return shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, "-P", "-s", "-m", "app.agent.run"])


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command; the exit status."""
    if len(arguments) != 1:
        print("usage: $AGENT_RUN COMMAND, the command as one argument", file=sys.stderr)
        return 2
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    theirs = {name: value for name, value in environment.items() if name != HOME}
    theirs["HOME"] = environment.get(HOME, "")
    try:
        settings = settings_from(theirs)
        if not theirs["HOME"]:
            raise BadSetting(f"{HOME} is not set")
    except BadSetting as e:
        print(f"{e}: this is for the program that AGENT_PROGRAM names", file=sys.stderr)
        return 2
    # A signal to the program's group must not end the runner, which ends the command when this process is gone.
    if os.getpgid(0) != os.getpid():
        os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, end)
    try:
        ok, text = run_command(
            Workspace(settings.folder),
            lambda: ended,
            arguments[0],
            limit=settings.command_timeout,
            environment=command_environment(theirs, settings.token(), settings.uuid),
            hidden=hidden_folder(settings.token_file, settings.folder),
        )
    except ToolError as e:
        ok, text = False, str(e)
    print(text)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
