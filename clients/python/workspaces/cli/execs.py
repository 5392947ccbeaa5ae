"""The commands that run commands in a workspace."""

from __future__ import annotations

import json as jsons
import sys
from typing import Annotated, Any, Literal

import typer

from workspaces.cli.context import Json, Limit, Uuid, client, late, named_values
from workspaces.cli.output import ago, print_facts, print_json, print_list, relay_bytes, shortened, size
from workspaces.cli.running import Shown, attend, ending, how_it_ended
from workspaces.models import ExecEntry
from workspaces.resources.base import MOST_WAIT, new_id

app = typer.Typer()

LONGEST_COMMAND = 60
"""Characters shown of a command in a list."""

ExecId = Annotated[str, typer.Argument(help="The command's id, as `execs` lists it.", show_default=False)]
Command = Annotated[
    list[str],
    typer.Argument(help="A text for the shell; or a program and its arguments, after `--`.", show_default=False),
]
Cwd = Annotated[str | None, typer.Option(help="The folder, relative to the workspace's.")]
Wake = Annotated[bool, typer.Option(help="Wake the session if it sleeps.")]


@app.command()
def run(
    context: typer.Context,
    uuid: Uuid,
    command: Command,
    cwd: Cwd = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated.", show_default=False)] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which it is ended.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Send it standard input.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Print its id and leave it running.")] = False,
    id: Annotated[str | None, typer.Option(help="Its id: the same id and command again are the same run.")] = None,
    wake: Wake = True,
    json: Json = False,
) -> None:
    """Run a command in a workspace: its output comes as it is written, its exit code is the code of this program.

    128 and the signal's number if a signal ended it; 125 if it did not end by itself, and standard error says why.
    Ctrl-C sends it SIGINT; a second Ctrl-C leaves it running.

    Example: sessionctl run k3v9x2ab "python3 hello.py"
    """
    calls, exec_id = client(context).execs, id or new_id()
    wanted = command[0] if len(command) == 1 else command
    options: dict[str, Any] = {
        "cwd": cwd,
        "env": named_values(env, "--env"),
        "stdin": read_input() if stdin else None,
        "timeout": timeout,
        "id": exec_id,
        "wake": wake,
    }
    if not detach:
        ended = attend(calls, uuid, exec_id, calls.stream(uuid, wanted, **options), Shown(as_json=json))
        raise typer.Exit(how_it_ended(ended))
    begun = calls.run(uuid, wanted, detach=True, **options)
    if json:
        print_json(begun)
    else:
        print(begun.exec_id)


@app.command("execs")
def list_(context: typer.Context, uuid: Uuid, wake: Wake = True, limit: Limit = 100, json: Json = False) -> None:
    """List the commands that run in a workspace, and the last that ran, newest first.

    Example: sessionctl execs k3v9x2ab
    """
    print_list(
        client(context).execs.list(uuid, wake=wake).execs,
        limit,
        lambda each: (
            each.exec_id,
            _state(each),
            shortened(_text(each), LONGEST_COMMAND),
            size(each.stdout_bytes),
            size(each.stderr_bytes),
            f"{each.ms / 1000:.1f} s",
            ago(each.started_at),
        ),
        *("EXEC", "STATE", "COMMAND", "STDOUT", "STDERR", "TOOK", "AGE"),
        empty="No command ran there. Run one with: sessionctl run SESSION COMMAND",
        as_json=json,
    )


@app.command()
def logs(
    context: typer.Context,
    uuid: Uuid,
    exec_id: ExecId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the command ends.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Its standard error instead of its output.")] = False,
    wake: Wake = True,
    json: Json = False,
) -> None:
    """Print what a command wrote.

    Example: sessionctl logs k3v9x2ab 7f3a9c0de1b2a4f5 -f
    """
    calls = client(context).execs
    stream: Literal["stdout", "stderr"] = "stderr" if stderr else "stdout"
    if follow:
        shown = Shown(as_json=json, only=stream)
        with calls.follow(uuid, exec_id, wake=wake) as events:
            shown.to_the_end(events)
    elif json:
        print_json(calls.get(uuid, exec_id, wake=wake))
    else:
        with calls.output(uuid, exec_id, stream, wake=wake) as parts:
            relay_bytes(parts, sys.stdout)


@app.command()
def kill(
    context: typer.Context,
    uuid: Uuid,
    exec_id: ExecId,
    signal: Annotated[str | None, typer.Option(help="Only send it this, as SIGINT.")] = None,
    wake: Wake = True,
    json: Json = False,
) -> None:
    """End a command with all that it started, or send it a signal.

    Example: sessionctl kill k3v9x2ab 7f3a9c0de1b2a4f5
    """
    wait = 0 if signal else MOST_WAIT
    found = client(context).execs.end(uuid, exec_id, signal=signal, wait=wait, wake=wake)
    if json:
        print_json(found)
    else:
        print_facts({"exec": found.exec_id, "state": _state(found)})
    if found.running and not signal:
        raise late(f"The command still runs after {MOST_WAIT:.0f} s.", f"execs {uuid}")


def read_input() -> str:
    """Standard input to its end; a usage error for a terminal, and for what is no text."""
    if sys.stdin.isatty():
        raise typer.BadParameter("standard input is a terminal: pipe the input in.", param_hint="--stdin")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise typer.BadParameter("standard input is no text in UTF-8.", param_hint="--stdin") from error


def _text(found: ExecEntry) -> str:
    return found.command if isinstance(found.command, str) else jsons.dumps(found.command, ensure_ascii=False)


def _state(found: ExecEntry) -> str:
    return "running" if found.running else ending(found)
