"""What every command shares: its options, the client, and how errors become exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from workspaces.cli.output import say
from workspaces.client import Workspaces
from workspaces.errors import (
    ConfigError,
    ConnectionFailed,
    NotFound,
    Unauthorized,
    WaitTimedOut,
    WakeLate,
    WorkspacesError,
)

FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_FOUND: Final = 4
TIMED_OUT: Final = 5
"""The exit codes besides 0; USAGE is typer's own."""

EXIT_CODES: tuple[tuple[type[WorkspacesError], int], ...] = (
    (WaitTimedOut, TIMED_OUT),
    (WakeLate, TIMED_OUT),
    (NotFound, NOT_FOUND),
    (ConfigError, UNREACHABLE),
    (ConnectionFailed, UNREACHABLE),
    (Unauthorized, UNREACHABLE),
    (WorkspacesError, FAILED),
)
"""The exit code of each error; the first match counts."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON, as the API answers it.")]
Uuid = Annotated[str, typer.Argument(help="The session.", show_default=False)]
Wait = Annotated[bool, typer.Option(help="Wait for the end, and show the steps.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait at most.")]
Limit = Annotated[int, typer.Option(min=1, help="Rows at most.")]


class State:
    """The options before the command. `transport` is for tests."""

    def __init__(self, config: Path | None, transport: httpx.BaseTransport | None = None) -> None:
        self.config = config
        self.transport = transport

    def client(self) -> Workspaces:
        """The client; raises `ConfigError`."""
        options: dict[str, Any] = {"transport": self.transport} if self.transport else {}
        return Workspaces.from_env(self.config, **options)


def client(context: typer.Context) -> Workspaces:
    """The client of this call, closed at its end."""
    made: Workspaces = context.with_resource(context.obj.client())
    return made


def named_values(texts: list[str] | None, option: str) -> dict[str, str] | None:
    """The values of an option by their names; a usage error for a text that is no NAME=VALUE."""
    for text in texts or []:
        if not text.partition("=")[1]:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE.", param_hint=option)
    return dict(text.split("=", 1) for text in texts) if texts else None


def late(what: str, look: str) -> WaitTimedOut:
    """The error of a wait that ran out: `what` has not happened yet, and the command `look` tells of it."""
    return WaitTimedOut(f"{what} It goes on by itself; look with: sessionctl {look}")


def run(program: Callable[[], Any]) -> int:
    """Run the program; returns its exit code. An error is one sentence on standard error."""
    try:
        program()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        return 0
    except OSError as error:
        say(f"sessionctl: {error.filename or 'a file'}: {error.strerror or error}.")
        return FAILED
    except WorkspacesError as error:
        say(f"sessionctl: {error}")
        if error.request_id:
            say(f"The service's log knows this call as {error.request_id}.")
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    return 0
