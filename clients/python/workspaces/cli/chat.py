"""The command that talks to a workspace's agent."""

from __future__ import annotations

import json as jsons
import sys
from typing import Annotated, Any

import typer

from workspaces.cli.context import FAILED, Json, Uuid, client
from workspaces.cli.output import err, print_event, printable, safe, say, shortened
from workspaces.events import (
    Event,
    HeldEvent,
    MessageEvent,
    PhaseEvent,
    StateEvent,
    TokenEvent,
    ToolCallEvent,
    ToolResultEvent,
)

app = typer.Typer()

LONGEST_LINE = 100
"""Characters shown of a tool's arguments."""


@app.command()
def chat(
    context: typer.Context,
    uuid: Uuid,
    prompt: Annotated[str, typer.Argument(help="The prompt; `-` reads standard input.")] = "-",
    json: Json = False,
) -> None:
    """Send the agent a prompt, and show its work as it happens. A sleeping session wakes.

    Example: sessionctl chat k3v9x2ab "create hello.py and run it"
    """
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise typer.BadParameter("the prompt is empty.", param_hint="PROMPT")
    said = Said()
    with client(context).messages.stream(uuid, text) as stream:
        for event in stream:
            if json:
                print_event(event)
            else:
                said.show(event)
            if isinstance(event, HeldEvent):
                say(event.detail)
                raise typer.Exit(FAILED)
            if isinstance(event, MessageEvent) and event.finished:
                said.end(event, quiet=json)


class Said:
    """The agent's answer on standard output, as it comes; its steps on standard error."""

    def __init__(self) -> None:
        self._written = ""

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, TokenEvent):
            if event.again and self._written:
                self._line()
            self._write(event.text)
        elif isinstance(event, ToolCallEvent):
            self._line()
            err.print(f"[dim]→ {safe(event.name or 'tool')} {safe(_short(event.arguments))}[/]")
        elif isinstance(event, ToolResultEvent) and event.ok is False:
            err.print(f"[red]✗[/] {safe(event.name or 'tool')}")
        elif isinstance(event, PhaseEvent):
            err.print(f"[dim]  ✓ {safe(event.phase)} {event.ms} ms[/]")
        elif isinstance(event, StateEvent) and event.status != "active":
            err.print(f"[dim]{safe(event.status)} …[/]")

    def end(self, event: MessageEvent, *, quiet: bool) -> None:
        """The prompt has ended: print what the tokens did not bring, and exit by how it went."""
        if event.state == "failed":
            self._line()
            say(f"sessionctl: the prompt failed: {event.reason or 'no reason was given'}")
            raise typer.Exit(FAILED)
        if not quiet:
            if not self._written.strip():
                self._write(event.text)
            self._line()

    def _write(self, text: str) -> None:
        self._written = (self._written + text)[-200:]
        print(printable(text), end="", flush=True)

    def _line(self) -> None:
        if self._written and not self._written.endswith("\n"):
            self._write("\n")


def _short(arguments: Any) -> str:
    text = arguments if isinstance(arguments, str) else jsons.dumps(arguments, ensure_ascii=False)
    return shortened(text, LONGEST_LINE)
