"""The program `sessionctl`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from workspaces.cli import backups, chat, execs, files, operators, ports, restore_points, services, sessions, shell
from workspaces.cli.context import State, run
from workspaces.version import VERSION

HELP = """Drive the Workspace Session Manager: create, wake, talk to, back up and delete workspaces.

The service and its key come from API_URL and API_KEY, or from ~/.config/workspaces/config.toml with the lines
api_url = "…" and api_key = "…".

Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 not configured, not reachable, or the key is wrong;
4 not found; 5 a wait ran out. `run` and `shell` end with the code of their command.
"""

app = typer.Typer(name="sessionctl", help=HELP, no_args_is_help=True, pretty_exceptions_enable=False)
for module in (sessions, chat, execs, shell, services, ports, files, backups, restore_points, operators):
    app.add_typer(module.app)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        print(VERSION)
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="A file with api_url and api_key.")] = None,
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """The options before the command."""
    if context.obj is None:
        context.obj = State(config)


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(app))
