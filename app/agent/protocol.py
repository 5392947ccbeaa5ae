"""What an agent and the manager must agree on: the events of a turn, as `POST /agent/v1/events` reports them, why a
prompt, a command or a change of files fails, what a service does, and how paths are written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

TOKEN, TOOL_CALL, TOOL_RESULT = "token", "tool_call", "tool_result"
PROCESSED, FAILED = "processed", "failed"
ENDS = frozenset({PROCESSED, FAILED})

AGENT_PORT = 1111
"""Where the agent listens in a workspace's pod. The network policies of manifests/ let nothing reach another port."""

REPORT_EVENTS = 200
"""Events of one report at most."""


class Failure(StrEnum):
    """Why a prompt failed, in words for programs: the `code` of an outcome, and a label of a metric."""

    MODEL_UNAVAILABLE = "model_unavailable"
    """The model's API did not answer, was overloaded or failed, until the agent gave up."""
    MODEL_REFUSED = "model_refused"
    MODEL_FAILED = "model_failed"
    """What it answered can't be used."""
    CONTEXT_TOO_LONG = "context_too_long"
    LLM_NOT_CONFIGURED = "llm_not_configured"
    MODEL_WITHOUT_PRICE = "model_without_price"
    BUDGET_EXCEEDED = "budget_exceeded"
    LLM_BUDGET_EXCEEDED = "llm_budget_exceeded"
    """A budget of tokens."""
    STEP_LIMIT = "step_limit"
    TOKEN_LIMIT = "token_limit"
    TURN_TIMEOUT = "turn_timeout"
    CRASHED = "crashed"
    """The agent ended each time that it worked on the prompt."""
    INTERNAL = "internal"
    """The agent failed in a way that nobody thought of."""
    DISK = "disk"
    """The workspace's disk can't be written."""
    AGENT_REFUSED = "agent_refused"
    """The agent did not take the prompt."""
    SLEEP = "sleep"
    DELETE = "delete"
    USER = "user"
    CANCELLED = "cancelled"
    RESTORED = "restored"
    ROLLED_BACK = "rolled_back"
    OTHER = "other"
    """Whatever else an agent gives, which may be one of the user's own."""

    @classmethod
    def of(cls, code: Any) -> Failure:
        """That of a reported code, which may be anything."""
        return next((each for each in cls if each == code), cls.OTHER)


FAULTS = frozenset(
    {
        *(Failure.MODEL_UNAVAILABLE, Failure.MODEL_REFUSED, Failure.MODEL_FAILED, Failure.LLM_NOT_CONFIGURED),
        *(Failure.CRASHED, Failure.INTERNAL, Failure.DISK, Failure.AGENT_REFUSED, Failure.OTHER),
    }
)
"""Those that the user did not ask for, and that no limit of theirs explains."""


EXEC_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
"""The id of a command, which names a folder of the workspace's volume."""


INPUT_BYTES = 65_536
"""Of a piece of what is typed into a command's terminal."""

NO_TERMINAL = 410
"""The status of an agent's answer about the terminal of a command that has none, or none any more."""

SIDE_MOST = 1_000
"""Rows or columns of a terminal."""


@dataclass(frozen=True)
class Window:
    """The size of a terminal, in characters."""

    rows: int
    columns: int


def window_of(given: object) -> Window:
    """The size in a JSON document. Raises ValueError for what is none."""
    sides = given if isinstance(given, dict) else {}
    allowed = (type(side) is int and 1 <= side <= SIDE_MOST for side in sides.values())
    if sides.keys() != {"rows", "columns"} or not all(allowed):
        raise ValueError(f"must have `rows` and `columns`, each from 1 to {SIDE_MOST}")
    return Window(**sides)


class ExecReason(StrEnum):
    """Why a command that a caller ran did not end by itself."""

    TIMEOUT = "timeout"
    KILLED = "killed"
    """A caller asked for it."""
    SLEEP = "sleep"
    """The workspace was put to sleep."""
    STOPPED = "stopped"
    """The workspace stopped for another reason, as a restart."""
    PROCESSES = "processes"
    """It had too many processes."""
    NOT_BEGUN = "not_begun"
    """The login shell ended before it, or its folder was gone."""
    LOST = "lost"
    """The agent, or what ran it, was killed: it is not known how far it came."""


SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
"""The name of a service, which names a folder of the workspace's volume."""

SERVICES_MOST = 16
"""Services in a report at most."""


class ServiceState(StrEnum):
    """What a service does."""

    STARTING = "starting"
    """It runs, and its port does not listen yet; or it has none, and began just now."""
    RUNNING = "running"
    """It runs, and its port listens, or it has none."""
    WAITING = "waiting"
    """It ended, and is started again after a pause."""
    STOPPED = "stopped"
    """It ended by itself without an error, or with its workspace."""
    FAILED = "failed"
    """It ended otherwise, and is not started again."""


COMING = frozenset({ServiceState.STARTING, ServiceState.WAITING})
"""States that pass by themselves."""


class Restart(StrEnum):
    """When a service that ended by itself is started again."""

    NEVER = "never"
    ON_FAILURE = "on_failure"
    ALWAYS = "always"


PORTS_MOST = 100
"""Ports in an answer at most."""


class PortState(StrEnum):
    """What is at a port of a workspace."""

    LISTENING = "listening"
    """A program listens there."""
    STARTING = "starting"
    """None does yet; the service of this port starts, or is started again."""
    STOPPED = "stopped"
    """None does."""


FILE_PIECE = 2_097_152
"""Bytes of a file in one request or answer."""

UPLOAD_ID = re.compile(r"[0-9a-f]{16}")

UPLOAD_LOST = 410
"""The status of an agent's answer about an upload that it does not know, or not as the caller does."""


CHANGES_POSITION = re.compile(r"[0-9a-f]{16}-[0-9]{1,15}")
"""Up to where a caller knows the changes of files."""


class ArchiveFormat(StrEnum):
    """How a folder is packed."""

    TAR_GZ = "tar.gz"
    ZIP = "zip"


class FileFault(StrEnum):
    """Why a call on files failed: the code of the agent's answer, and of the manager's."""

    INVALID_PATH = "invalid_path"
    """It leads out of the workspace, or no file can have it."""
    FILE_NOT_FOUND = "file_not_found"
    NOT_A_FILE = "not_a_file"
    """A folder or a device where a file is needed, or a file where a folder is."""
    FILE_EXISTS = "file_exists"
    FILE_CHANGED = "file_changed"
    """It is not, or no longer, the one that the caller means."""
    FILE_DENIED = "file_denied"
    """The workspace's user may not read or change it."""
    WORKSPACE_FULL = "workspace_full"
    INVALID_ARCHIVE = "invalid_archive"
    """It is none of its format, or damaged, or has an entry that can't be in a folder."""
    NOT_WATCHED = "not_watched"
    """The kernel watches no more files for the workspace's user."""


FILE_STATUS: Mapping[FileFault, int] = {
    FileFault.INVALID_PATH: 400,
    FileFault.FILE_DENIED: 403,
    FileFault.FILE_NOT_FOUND: 404,
    FileFault.FILE_EXISTS: 409,
    FileFault.FILE_CHANGED: 412,
    FileFault.INVALID_ARCHIVE: 415,
    FileFault.NOT_A_FILE: 422,
    FileFault.NOT_WATCHED: 501,
    FileFault.WORKSPACE_FULL: 507,
}
"""The status of an agent's answer: each has its own."""


def to_raw(path: str) -> str:
    """A path as it is in a URL, and in JSON between the two: its bytes, which may be no text, percent-encoded."""
    return quote_from_bytes(os.fsencode(path))


def from_raw(raw: str) -> str:
    """The path, as Python names files: a byte that is no UTF-8 is a lone surrogate."""
    return os.fsdecode(unquote_to_bytes(raw))


@dataclass(frozen=True)
class Event:
    """`type` is token, tool_call, tool_result, processed or failed, and determines the fields of `data`."""

    type: str
    message_id: str
    data: Mapping[str, Any]

    @property
    def ends(self) -> bool:
        """Whether the event says how a prompt ended."""
        return self.type in ENDS

    def to_json(self) -> dict[str, Any]:
        return {"type": self.type, "message_id": self.message_id, "data": dict(self.data)}
