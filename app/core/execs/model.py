"""Commands that callers run in workspaces, as an agent tells of them: with the types of a true answer, and no more than
that is known of it, as the workspace's user controls the agent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.agent.protocol import EXEC_ID, ExecReason, Window, window_of
from app.core.agents.answers import exit_code, known, matching, moment, signal_name, text, truth, whole

RUNNING, EXITED = "running", "exited"
STREAMS = ("stdout", "stderr")


@dataclass(frozen=True, kw_only=True)
class NewExec:
    """What a caller asks for, as `POST /session/{uuid}/exec` documents it. `timeout` is in s, None for the longest;
    `tty` the size of its terminal, None for none."""

    id: str
    command: str | list[str]
    cwd: str = "."
    env: Mapping[str, str] | None = None
    stdin: str = ""
    timeout: float | None = None
    detach: bool = False
    tty: Mapping[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Exec:
    """A command that runs or ran. Times are seconds since the epoch by the workspace's clock, 0 for none yet; `sizes`
    are the bytes written so far, `kept` those of them that can be read. `tty` is the size of its terminal, None for
    none, and `input_bytes` are those typed there so far."""

    uuid: str
    id: str
    command: str | list[str]
    cwd: str
    detached: bool
    state: str
    exit_code: int | None
    signal: str | None
    reason: ExecReason | None
    left: int
    started_at: float
    ended_at: float
    ms: int
    sizes: Mapping[str, int]
    kept: Mapping[str, int]
    tty: Window | None = None
    input_bytes: int = 0
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False

    @property
    def running(self) -> bool:
        return self.state == RUNNING


@dataclass(frozen=True)
class Piece:
    """The next of a command's output: each stream's text and where the one after it begins, and whether there may be
    more."""

    about: Exec
    texts: Mapping[str, str]
    following: Mapping[str, int]
    more: bool

    @property
    def empty(self) -> bool:
        return not any(self.texts.values())


def exec_of(uuid: str, told: Any) -> Exec:
    """The command in an agent's answer. Raises ValueError for what is none."""
    if not isinstance(told, dict):
        raise ValueError("no object")
    command = told.get("command")
    if isinstance(command, list):
        command = [text(each) for each in command]
    elif not isinstance(command, str):
        raise ValueError("no command")
    state = told.get("state")
    if state not in (RUNNING, EXITED):
        raise ValueError("no state")
    return Exec(
        uuid=uuid,
        id=matching(told.get("id"), EXEC_ID),
        command=command,
        cwd=text(told.get("cwd")),
        detached=truth(told.get("detached")),
        state=state,
        exit_code=known(told.get("exit_code"), exit_code),
        signal=known(told.get("signal"), signal_name),
        reason=known(told.get("reason"), ExecReason),
        left=whole(told.get("left") or 0),
        started_at=moment(told.get("started_at")),
        ended_at=known(told.get("ended_at"), moment) or 0.0,
        ms=whole(told.get("ms")),
        sizes=_of_streams(told.get("sizes")),
        kept=_of_streams(told.get("kept")),
        tty=known(told.get("tty"), window_of),
        input_bytes=whole(told.get("input_bytes")),
        stdout=text(told.get("stdout", "")),
        stderr=text(told.get("stderr", "")),
        truncated=truth(told.get("truncated", False)),
    )


def piece_of(uuid: str, told: Mapping[str, Any]) -> Piece:
    """The piece of output in an agent's answer. Raises ValueError for what is none."""
    texts, following = {}, {}
    for name in STREAMS:
        part = told.get(name)
        if not isinstance(part, dict):
            raise ValueError("no piece")
        texts[name], following[name] = text(part.get("text")), whole(part.get("next"))
    about = {key: value for key, value in told.items() if key not in STREAMS}
    return Piece(exec_of(uuid, about), texts, following, truth(told.get("more")))


def _of_streams(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ValueError("no sizes")
    return {name: whole(value.get(name)) for name in STREAMS}
