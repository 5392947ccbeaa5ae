"""What a caller asks to be run, checked."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.agent.protocol import EXEC_ID, Window, window_of
from app.agent.tools.orphans import MARK
from app.agent.tools.sandbox_path import ToolError, Workspace

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

ARGUMENTS_BYTES = 100_000
"""Of a command with its variables: Linux takes 128 KiB in one argument."""

STDIN_BYTES = 100_000

TERMINAL_SECONDS = 86_400.0
"""A command in a terminal may take: nobody knows how long somebody works there, and what keeps the workspace awake is
what happens in it, not that it is there."""


ORDER_BYTES = ARGUMENTS_BYTES + STDIN_BYTES


class BadOrder(ValueError):
    """A value is invalid; the text names it and says what is allowed."""


@dataclass(frozen=True)
class Order:
    """A command, by a shell (text) or by itself (list); its folder below the workspace's, the variables it gets beside
    those of a terminal, its input, and the seconds it may take. A detached one has no caller that waits for it. One
    with a `window` has a terminal of this size, from which its input comes."""

    id: str
    command: str | list[str]
    cwd: str = "."
    environment: Mapping[str, str] | None = None
    stdin: str = ""
    seconds: float = 0.0
    detached: bool = False
    window: Window | None = None

    @property
    def digest(self) -> str:
        """Of all that is asked: the same id with another digest is another order."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def read_order(given: Mapping[str, Any], longest: float) -> Order:
    """The order in a request, whose time limit is at most `longest` seconds, in a terminal at least a day. Raises
    BadOrder."""
    id_, command, cwd = given.get("id"), given.get("command"), given.get("cwd", ".")
    environment, stdin, seconds = given.get("env") or {}, given.get("stdin") or "", given.get("timeout")
    detached = given.get("detach", False)
    if not isinstance(id_, str) or not EXEC_ID.fullmatch(id_):
        raise BadOrder("`id` must be 1 to 64 characters of A-Z a-z 0-9 . _ -, and not begin with a dot")
    if not isinstance(command, str | list) or not all(isinstance(each, str) for each in command):
        raise BadOrder("`command` must be a text for the shell, or a list of a program and its arguments")
    words = [command] if isinstance(command, str) else command
    if not words or (isinstance(command, str) and not command.strip()):
        raise BadOrder("`command` is empty")
    if not isinstance(cwd, str) or not isinstance(stdin, str) or not isinstance(detached, bool):
        raise BadOrder("`cwd` and `stdin` must be texts, `detach` true or false")
    if not isinstance(environment, dict) or not all(isinstance(value, str) for value in environment.values()):
        raise BadOrder("`env` must be an object of texts")
    if not all(NAME.fullmatch(name) and name != MARK for name in environment):
        raise BadOrder(f"a name in `env` must be of A-Z a-z 0-9 _ and not begin with a digit, nor be {MARK}")
    texts = [*words, cwd, *environment, *environment.values()]
    if size_of("`command`, `cwd` and `env`", texts) > ARGUMENTS_BYTES:
        raise BadOrder(f"`command` and `env` must have at most {ARGUMENTS_BYTES:,} bytes; pass the rest as `stdin`")
    if len(_encoded(stdin)) > STDIN_BYTES:
        raise BadOrder(f"`stdin` must have at most {STDIN_BYTES:,} bytes")
    window = tty_of(given.get("tty"))
    if window is not None:
        longest = max(longest, TERMINAL_SECONDS)
        if stdin:
            raise BadOrder("a command with a `tty` has no `stdin`: its input comes by calls of their own")
    if seconds is None:
        seconds = longest
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= longest:
        raise BadOrder(f"`timeout` must be a number of seconds, above 0 and at most {longest:g}")
    return Order(id_, command, cwd, environment, stdin, float(seconds), detached, window)


def tty_of(given: Any) -> Window | None:
    """The size of a terminal, None for none. Raises BadOrder."""
    try:
        return None if given is None else window_of(given)
    except ValueError as e:
        raise BadOrder(f"`tty` {e}") from None


def folder_of(workspace: Workspace, cwd: str) -> str:
    """The path on this machine of a folder of the workspace. Raises BadOrder."""
    try:
        with workspace.resolve(cwd) as place:
            status = place.status()
    except ToolError as e:
        raise BadOrder(f"`cwd`: {e}") from None
    if status is None or not stat.S_ISDIR(status.st_mode):
        raise BadOrder(f"`cwd`: there is no folder {cwd}")
    return str(workspace.folder.absolute() / place.path)


def size_of(names: str, texts: Iterable[str]) -> int:
    """The bytes of texts that a process is given, each with its end; `names` are the fields they are from. Raises
    BadOrder for a text that no process can be given."""
    size = 0
    for text in texts:
        if "\0" in text:
            raise BadOrder(f"{names} must not contain a NUL")
        size += len(_encoded(text)) + 1
    return size


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadOrder("a text has a lone surrogate, which UTF-8 can't encode") from None
