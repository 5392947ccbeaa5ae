"""The command that shows a terminal of a workspace in the local one."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from workspaces.cli.context import FAILED, Uuid, client, named_values
from workspaces.cli.execs import Cwd, Wake
from workspaces.cli.output import say
from workspaces.cli.running import ENDED, INTERRUPTED, WHY, ending, how_it_ended, say_unknown
from workspaces.cli.terminal import MOST_INPUT, Bell, Escape, Sender, raw, window_of
from workspaces.errors import Asleep, ConnectionFailed, NotFound, WorkspacesError
from workspaces.events import Event, ExitEvent, OutputEvent
from workspaces.models import Exec
from workspaces.resources.base import new_id
from workspaces.resources.execs import Execs
from workspaces.sse import Stream

app = typer.Typer()

SHELL: Final = "if command -v bash >/dev/null; then exec bash; else exec sh; fi"
"""What runs where no command is given."""

SHOWN_AGAIN: Final = 1_000
"""Bytes shown of what a terminal has shown before: with a prompt, mostly, that tells where one is."""

LAST_CALL: Final = 5.0
"""s for the call that ends a shell whose window was closed."""

LAST_INPUT: Final = 1.0
"""s for what was typed before `~.`: it is typed also where nothing gets through any more."""


@app.command()
def shell(
    context: typer.Context,
    uuid: Uuid,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="Instead of a shell: a text for one; or a program and its arguments, after `--`.", show_default=False
        ),
    ] = None,
    cwd: Cwd = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be repeated.", show_default=False)] = None,
    attach: Annotated[
        str | None, typer.Option(metavar="EXEC", help="Go on in a terminal that runs, as `execs` lists it.")
    ] = None,
    wake: Wake = True,
) -> None:
    """Open a terminal in a workspace. Its exit code is that of its command, as of `run`.

    At the beginning of a line `~.` leaves it: the shell runs on, and a line says how to come back; `~~` is a `~`. A
    window that is closed ends it.

    Example: sessionctl shell k3v9x2ab
    """
    _check(attached=attach is not None, others=[command, cwd, env])
    calls = client(context).execs
    if attach is None:
        wanted = command[0] if command and len(command) == 1 else command or SHELL
        found = _begun(calls, uuid, wanted, cwd, named_values(env, "--env") or {}, wake)
        after = None
    else:
        found = _running(calls, uuid, attach, wake)
        after = f"{max(0, found.stdout_bytes - SHOWN_AGAIN)}-0"
    there = There(calls, uuid, found.exec_id)
    try:
        how = attend(there, found, after)
    except Asleep:
        say(f"sessionctl: the command was ended: {WHY['sleep']}.")
        raise typer.Exit(ENDED) from None
    except WorkspacesError as error:
        if not isinstance(error, NotFound):
            there.tell_the_way_back()
        raise
    raise typer.Exit(_code(there, how, attached=attach is not None))


def _check(*, attached: bool, others: list[object]) -> None:
    """A usage error unless there is a terminal, and the arguments go together."""
    if attached and any(others):
        raise typer.BadParameter("it goes without a command, --cwd and --env.", param_hint="--attach")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        message = "this needs a terminal as standard input and output. Without one use: sessionctl run SESSION COMMAND"
        raise typer.BadParameter(message)
    try:
        import termios  # noqa: F401
    except ImportError as error:
        raise typer.BadParameter("this system's terminals can't be used. Use: sessionctl run") from error


def _begun(calls: Execs, uuid: str, command: str | list[str], cwd: str | None, env: dict[str, str], wake: bool) -> Exec:
    """The command, as it begins. It is asked for before the terminal is anything but itself: Ctrl-C ends the wait for
    a workspace that wakes."""
    kind = os.environ.get("TERM")
    env = ({"TERM": kind} if kind else {}) | env
    try:
        window = window_of(sys.stdout.fileno())
        return calls.run(uuid, command, cwd=cwd, env=env or None, tty=window, id=new_id(), wake=wake, wait=0)
    except KeyboardInterrupt:
        say_unknown(uuid)
        raise typer.Exit(INTERRUPTED) from None


def _running(calls: Execs, uuid: str, exec_id: str, wake: bool) -> Exec:
    """The command to attach to; says why that is not possible."""
    found = calls.get(uuid, exec_id, wake=wake)
    if found.running and found.tty is not None:
        return found
    why = f"has ended: {ending(found)}" if not found.running else "has no terminal"
    say(f"sessionctl: the command {exec_id} {why}. Look at it with: sessionctl logs {uuid} {exec_id}")
    raise typer.Exit(FAILED)


@dataclass(frozen=True)
class There:
    """A command in a terminal of a workspace."""

    calls: Execs
    uuid: str
    exec_id: str

    def end(self) -> None:
        """End it, if that is possible at once: nobody is there any more to be told of a failure."""
        caller = threading.Thread(target=self._end, name="ending", daemon=True)
        caller.start()
        caller.join(LAST_CALL)

    def _end(self) -> None:
        # One that runs on, idle, does not keep its workspace awake.
        with suppress(WorkspacesError):
            self.calls.end(self.uuid, self.exec_id, wait=0, wake=False)

    def tell_the_way_back(self) -> None:
        """Say how to come back, and how to end it."""
        say(f"Come back with: sessionctl shell {self.uuid} --attach {self.exec_id}")
        say(f"End it with: sessionctl kill {self.uuid} {self.exec_id}")


class Screen:
    """Shows a command's output in the local terminal `fd` as it comes, in a thread of its own. At the end it rings the
    bell: `end` is how the command ended, or `failure` why that is not known."""

    def __init__(self, events: Stream[Event], fd: int, bell: Bell) -> None:
        self.end: ExitEvent | None = None
        self.failure: Exception | None = None
        self._events, self._fd, self._bell = events, fd, bell
        self._stopped = False
        self._newest = b"\n"

    def start(self) -> None:
        """Begin to show."""
        threading.Thread(target=self._run, name="screen", daemon=True).start()

    def stop(self) -> None:
        """Show nothing more; what is shown next stands in a line of its own."""
        self._stopped = True
        with suppress(OSError):
            if not self._newest.endswith(b"\n") and select.select([], [self._fd], [], 0)[1]:
                os.write(self._fd, b"\r\n")

    def _run(self) -> None:
        try:
            self.end = self._to_the_end()
        except Exception as error:  # noqa: BLE001 - the main thread gets every error
            self.failure = error
        self._bell.ring()

    def _to_the_end(self) -> ExitEvent:
        for event in self._events:
            if isinstance(event, OutputEvent):
                self._write(event.text.encode(errors="replace"))
            if isinstance(event, ExitEvent):
                return event
        raise ConnectionFailed("The service ended the output before the command ended.")

    def _write(self, shown: bytes) -> None:
        """As it is: a terminal needs the control characters that `relay` filters."""
        while shown and not self._stopped:
            # Another program that has this terminal may have made it one that does not wait.
            select.select([], [self._fd], [])
            written = os.write(self._fd, shown)
            self._newest, shown = shown[:written], shown[written:]


@dataclass(frozen=True)
class Left:
    """Why a terminal is shown no more before its command ended: a `signal`, or None for `~.`."""

    signal: int | None = None


def attend(there: There, found: Exec, after: str | None) -> ExitEvent | Left:
    """Show a command's terminal in the local one until it ends or is left. Raises why its end is not known."""
    here, shown = sys.stdin.fileno(), sys.stdout.fileno()
    sys.stdout.flush()
    with ExitStack() as stack:
        bell = stack.enter_context(closing(Bell()))
        stack.enter_context(bell.rung_by((signal.SIGWINCH, *_ends())))
        stack.enter_context(raw(here))
        sender = Sender(there.calls, there.uuid, there.exec_id, found.input_bytes, bell.ring)
        screen = Screen(there.calls.follow(there.uuid, there.exec_id, after=after, wake=False), shown, bell)
        stack.callback(sender.stop)
        stack.callback(screen.stop)
        # Also where the size is the same: a program that draws its own screen draws it anew.
        if after is not None or window_of(shown) != found.tty:
            sender.resize(window_of(shown))
        sender.start()
        screen.start()
        return _watch(here, shown, bell, sender, screen)


def _ends() -> tuple[int, ...]:
    """The signals that end this program."""
    return signal.SIGHUP, signal.SIGTERM, signal.SIGINT


def _watch(here: int, shown: int, bell: Bell, sender: Sender, screen: Screen) -> ExitEvent | Left:
    """Pass on what is typed, and the window's size, until something ends that."""
    escape = Escape()
    while True:
        ready = select.select([bell.fileno(), *([here] if sender.has_room else [])], [], [])[0]
        for number in bell.heard():
            if number == signal.SIGWINCH:
                sender.resize(window_of(shown))
            elif number in _ends():
                return Left(number)
        if screen.end is not None:
            return screen.end
        if isinstance(screen.failure, OSError):
            return Left(signal.SIGHUP)
        if failure := screen.failure or sender.failure:
            raise failure
        if here in ready:
            typed = _read(here)
            if not typed:
                return Left(signal.SIGHUP)
            data, leaves = escape.feed(typed)
            sender.type(data)
            if leaves:
                sender.finish(LAST_INPUT)
                return Left()


def _read(fd: int) -> bytes:
    """What was typed; nothing if the terminal is gone."""
    try:
        return os.read(fd, MOST_INPUT)
    except OSError:
        return b""


def _code(there: There, how: ExitEvent | Left, *, attached: bool) -> int:
    """The exit code; ends a command that nobody can come back to, as its window was closed."""
    if isinstance(how, ExitEvent):
        return how_it_ended(how)
    if how.signal is None:
        say("sessionctl: the command goes on.")
        there.tell_the_way_back()
        return 0
    if not attached:
        there.end()
    return 128 + how.signal
