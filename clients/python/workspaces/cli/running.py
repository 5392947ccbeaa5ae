"""Attends a command that runs in a workspace: shows its output, passes Ctrl-C on, and tells how it ended."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Final

import typer

from workspaces.cli.output import print_event, relay, say
from workspaces.errors import Asleep, ConnectionFailed, ExecNotFound
from workspaces.events import Event, ExitEvent, OutputEvent
from workspaces.models import ExecEntry, Service
from workspaces.resources.execs import Execs
from workspaces.sse import Stream

ENDED: Final = 125
"""The exit code for a command that did not end by itself."""

INTERRUPTED: Final = 128 + signal.SIGINT

WHY: Mapping[str, str] = {
    "timeout": "it ran longer than its time limit",
    "killed": "somebody ended it",
    "sleep": "its session was put to sleep",
    "stopped": "its workspace stopped",
    "processes": "it had too many processes",
    "not_begun": "the login shell ended before it began",
    "lost": "what ran it was killed, and it is not known how far it came",
}
"""Why a command did not end by itself, in words, by the `reason`."""


class Shown:
    """Shows a command's output: each stream on its own; or `only` one, on standard output; or all events as JSON.
    `after` is the id of the last event that it was given."""

    def __init__(self, *, as_json: bool, only: str | None = None) -> None:
        self.after: str | None = None
        self._as_json = as_json
        self._streams = {only: sys.stdout} if only else {"stdout": sys.stdout, "stderr": sys.stderr}

    def to_the_end(self, events: Iterable[Event]) -> ExitEvent:
        """Show the events until the command has ended; returns its end."""
        for event in events:
            # First, as Ctrl-C strikes while a terminal is written to, or just after.
            self.after = event.id
            if self._as_json:
                print_event(event)
            elif isinstance(event, OutputEvent) and event.type in self._streams:
                relay(event.text, self._streams[event.type])
            if isinstance(event, ExitEvent):
                return event
        raise ConnectionFailed("The service ended the output before the command ended.")


def attend(calls: Execs, uuid: str, exec_id: str, events: Stream[Event], shown: Shown) -> ExitEvent:
    """Show a command's output until its end. Ctrl-C sends the command SIGINT; after a second one it goes on alone."""
    try:
        with events:
            return shown.to_the_end(events)
    except KeyboardInterrupt:
        say("sessionctl: sending the command SIGINT; Ctrl-C again leaves it running.")
    try:
        calls.end(uuid, exec_id, signal="SIGINT", wait=0, wake=False)
        with calls.follow(uuid, exec_id, after=shown.after, wake=False) as rest:
            return shown.to_the_end(rest)
    except KeyboardInterrupt:
        say(f"sessionctl: the command goes on. Look at it with: sessionctl logs {uuid} {exec_id} -f")
        say(f"End it with: sessionctl kill {uuid} {exec_id}")
    except (Asleep, ExecNotFound):
        say_unknown(uuid)
    raise typer.Exit(INTERRUPTED)


def say_unknown(uuid: str) -> None:
    """Say how to look for a command of which it is not known whether it began."""
    say(f"sessionctl: it is not known whether the command began; look with: sessionctl execs {uuid}")


def how_it_ended(ended: ExecEntry) -> int:
    """The exit code that tells how a command ended; says why, if it did not end by itself."""
    if ended.reason is not None:
        say(f"sessionctl: the command was ended: {WHY.get(ended.reason, ended.reason)}.")
        return ENDED
    if ended.left:
        say(f"sessionctl: processes that the command left running were ended: {ended.left}.")
    if ended.signal is not None:
        return 128 + number_of(ended.signal)
    return ENDED if ended.exit_code is None else ended.exit_code


def ending(found: ExecEntry | Service) -> str:
    """How a run ended, in a word or two."""
    return found.reason or found.signal or f"exit {found.exit_code}"


def number_of(name: str) -> int:
    """The number of a signal; 0 for one that this system does not have."""
    found = signal.Signals.__members__.get(name)
    return 0 if found is None else found.value
