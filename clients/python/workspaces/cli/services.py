"""The commands on the services of a workspace."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from workspaces.cli.context import FAILED, Json, Uuid, client, late
from workspaces.cli.execs import LONGEST_COMMAND, Command, Cwd, Wake
from workspaces.cli.output import print_event, print_facts, print_json, print_rows, relay, say, shortened
from workspaces.cli.running import ending
from workspaces.events import LogEvent
from workspaces.models import Service, ServiceState
from workspaces.resources.base import MOST_WAIT
from workspaces.resources.services import Restart, Services

app = typer.Typer()

LOG_END = 4_096
"""Bytes shown of the log of a service that does not run."""

TO_BE_STARTED = (ServiceState.STARTING, ServiceState.WAITING)
"""The states of a service that may still come to run."""

Name = Annotated[str, typer.Argument(help="The service's name, as `services` lists it.", show_default=False)]


@app.command("services")
def list_(context: typer.Context, uuid: Uuid, wake: Wake = True, json: Json = False) -> None:
    """List the services of a workspace, by name.

    Example: sessionctl services k3v9x2ab
    """
    found = client(context).services.list(uuid, wake=wake).services
    if json:
        return print_json(found)
    print_rows(
        (
            (each.name, _state(each), _port(each), each.restart, shortened(each.command, LONGEST_COMMAND))
            for each in found
        ),
        *("SERVICE", "STATE", "PORT", "RESTART", "COMMAND"),
        empty="The workspace has no service. Start one with: sessionctl serve SESSION NAME COMMAND",
    )


@app.command()
def serve(
    context: typer.Context,
    uuid: Uuid,
    name: Annotated[
        str, typer.Argument(help="Its name, as web: up to 32 letters, digits, - and _.", show_default=False)
    ],
    command: Command,
    port: Annotated[int | None, typer.Option(help="Where it listens: it runs once it does.")] = None,
    cwd: Cwd = None,
    restart: Annotated[
        Restart | None, typer.Option(help="When to start it again after it ended; by default on_failure.")
    ] = None,
    autostart: Annotated[bool, typer.Option("--autostart", help="Start it whenever the workspace starts.")] = False,
    wake: Wake = True,
    json: Json = False,
) -> None:
    """Start a service of a workspace, and wait until it runs: until it listens on its port, if it has one.

    It takes the place of another one by its name. If it does not run then, standard error has the end of its log, and
    the exit code is 1; 5 if it may still start.

    Example: sessionctl serve k3v9x2ab web "npm run dev" --port 3000
    """
    calls = client(context).services
    text = command[0] if len(command) == 1 else shlex.join(command)
    started = calls.start(
        uuid, name, text, port=port, cwd=cwd, restart=restart, autostart=autostart, wake=wake, wait=MOST_WAIT
    )
    _tell(calls, uuid, started, as_json=json)


@app.command()
def restart(context: typer.Context, uuid: Uuid, name: Name, wake: Wake = True, json: Json = False) -> None:
    """End a service, if it runs, and start it again, as `serve`.

    Example: sessionctl restart k3v9x2ab web
    """
    calls = client(context).services
    _tell(calls, uuid, calls.restart(uuid, name, wake=wake, wait=MOST_WAIT), as_json=json)


@app.command()
def unserve(context: typer.Context, uuid: Uuid, name: Name, wake: Wake = True, json: Json = False) -> None:
    """End a service, and forget it with its log.

    Example: sessionctl unserve k3v9x2ab web
    """
    client(context).services.stop(uuid, name, wake=wake)
    if json:
        return print_json({"name": name, "status": "forgotten"})
    say(f"The service {name} has ended, and is forgotten.")


@app.command("service-log")
def log(
    context: typer.Context,
    uuid: Uuid,
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended for good.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Begin so many bytes before the end.")] = None,
    wake: Wake = True,
    json: Json = False,
) -> None:
    """Print what a service wrote, as far as it is kept.

    Example: sessionctl service-log k3v9x2ab web -f
    """
    calls = client(context).services
    if not follow:
        text = calls.log(uuid, name, tail=tail, wake=wake)
        return print_json({"text": text}) if json else relay(text, sys.stdout)
    with calls.follow(uuid, name, tail=tail, wake=wake) as events:
        for event in events:
            if json:
                print_event(event)
            elif isinstance(event, LogEvent):
                relay(event.text, sys.stdout)


def _tell(calls: Services, uuid: str, found: Service, *, as_json: bool) -> None:
    """Print a service that was started, and if it does not run, why; the exit code tells that too."""
    if as_json:
        print_json(found)
    else:
        print_facts({"service": found.name, "state": _state(found), "port": _port(found)})
    if found.state == ServiceState.RUNNING:
        return
    # A session that was put to sleep meanwhile is left so.
    relay(calls.log(uuid, found.name, tail=LOG_END, wake=False), sys.stderr)
    if found.state in TO_BE_STARTED:
        raise late(f"The service {found.name} does not run after {MOST_WAIT:.0f} s.", f"services {uuid}")
    raise typer.Exit(FAILED)


def _state(found: Service) -> str:
    """Its state; of one that ran and has ended also how."""
    return found.state if found.ended_at is None else f"{found.state}, {ending(found)}"


def _port(found: Service) -> str:
    return "" if found.port is None else str(found.port)
