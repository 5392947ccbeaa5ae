"""The commands on the ports of a workspace."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import typer

from workspaces.cli.context import FAILED, Json, Uuid, client, late
from workspaces.cli.execs import Wake
from workspaces.cli.output import ago, one_line, print_json, print_rows, say, when
from workspaces.models import PortOpening, PortState
from workspaces.resources.base import MOST_WAIT

app = typer.Typer()

SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}
"""In each unit of a duration."""

Number = Annotated[int, typer.Argument(min=1, max=65_535, help="The port's number.", show_default=False)]


def duration(text: str) -> timedelta:
    """A duration as 90s, 30min, 2h or 7d; a usage error for another text. It is at most 999,999 of its unit, so that a
    time so far ahead is still one."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})(s|m|min|h|d)", text)
    if not found:
        raise typer.BadParameter(f"{text!r} is no time as 90s, 30min, 2h or 7d.")
    return timedelta(seconds=int(found[1]) * SECONDS[found[2]])


@app.command("ports")
def list_(context: typer.Context, uuid: Uuid, wake: Wake = True, json: Json = False) -> None:
    """List the ports of a workspace: where something listens, those of services, and the opened ones.

    Example: sessionctl ports k3v9x2ab
    """
    found = client(context).ports.list(uuid, wake=wake).ports
    if json:
        return print_json(found)
    print_rows(
        (
            (
                str(each.port),
                each.state,
                one_line(each.process or ""),
                each.service or "",
                f"{ago(each.opened_at)} ago" if each.opened_at else "",
                when(each.public_until),
            )
            for each in found
        ),
        *("PORT", "STATE", "PROCESS", "SERVICE", "OPENED", "PUBLIC UNTIL"),
        empty="Nothing listens there. Start a service with: sessionctl serve SESSION NAME COMMAND --port PORT",
    )


@app.command()
def preview(
    context: typer.Context,
    uuid: Uuid,
    port: Number,
    public_for: Annotated[
        timedelta | None,
        typer.Option(parser=duration, metavar="DURATION", help="Show it to anybody for so long, as 30min, 2h or 7d."),
    ] = None,
    path: Annotated[str | None, typer.Option(help="Where to land, as /docs?page=2.")] = None,
    wake: Wake = True,
    json: Json = False,
) -> None:
    """Open a port of a workspace, and print the URL that leads a browser to what listens there.

    By default that is a link that works once, within seconds; with --public-for the address itself, which anybody may
    see until then. If nothing listens there, the port is opened all the same, and the exit code is 1; 5 if its service
    may still start.

    Example: sessionctl preview k3v9x2ab 3000
    """
    public_until = None if public_for is None else datetime.now(UTC) + public_for
    opened = client(context).ports.open(uuid, port, public_until=public_until, path=path, wake=wake, wait=MOST_WAIT)
    if json:
        print_json(opened)
    else:
        print(opened.url)
    if opened.state == PortState.STARTING:
        raise late(f"Nothing listens at port {port} after {MOST_WAIT:.0f} s.", f"ports {uuid}")
    if opened.state == PortState.STOPPED:
        say(f"Nothing listens at port {port} yet. Start it with: sessionctl {_start(opened)}")
        raise typer.Exit(FAILED)


@app.command("close-port")
def close(context: typer.Context, uuid: Uuid, port: Number, json: Json = False) -> None:
    """Close a port of a workspace: nobody sees it any more. What listens there goes on, and a session that sleeps is
    left so.

    Example: sessionctl close-port k3v9x2ab 3000
    """
    client(context).ports.close(uuid, port)
    if json:
        return print_json({"port": port, "status": "closed"})
    say(f"Port {port} is closed.")


def _start(opened: PortOpening) -> str:
    """The command that starts what is to listen at a port."""
    if opened.service:
        return f"restart {opened.uuid} {opened.service}"
    return f"serve {opened.uuid} NAME COMMAND --port {opened.port}"
