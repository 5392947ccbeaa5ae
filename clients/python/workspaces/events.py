"""The events of sessions, commands, services and files, each a class of its own; one that this version does not know is
a plain `Event`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workspaces.decoding import Answer, decode
from workspaces.models import FINISHED, ExecEntry, FileEntry, GonePath, Service, Status
from workspaces.sse import Raw


@dataclass(frozen=True, kw_only=True)
class Event(Answer):
    """What happened in a session. `id` is where a stream can be resumed; `raw` has the data of every type."""

    id: str
    type: str


@dataclass(frozen=True, kw_only=True)
class StateEvent(Event):
    """The session's state; `reason` says why it failed, or what its start waits for."""

    status: str
    reason: str | None
    reason_code: str | None
    backup: str | None


@dataclass(frozen=True, kw_only=True)
class PhaseEvent(Event):
    """A step of a start, a sleep or a deletion is done, `ms` after it was asked for. `restoring` and `restored` have
    what is restored, where that is known: how many `files` and `bytes`, and `of` when they are."""

    phase: str
    ms: int
    files: int | None
    bytes: int | None
    of: datetime | None


@dataclass(frozen=True, kw_only=True)
class BackupEvent(Event):
    """A backup that was asked for is `done`, or has `failed`. It lacks the files that `unreadable` names."""

    status: str
    name: str | None
    reason: str | None
    unreadable: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RestorePointEvent(Event):
    """A restore point is `done`, `unchanged` if the one before still is the newest, or an attempt at one `failed`."""

    status: str
    restore_point: str | None
    saved_at: datetime | None
    unchanged: bool | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class DrillFailedEvent(Event):
    """A restore point did not come back as it was made, and is broken; a new one is made. `differences` names some of
    the files that differ, each with how."""

    restore_point: str
    reason: str
    differences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RolledBackEvent(Event):
    """The session was rolled back to `restore_point`, or to before `message_id`; or that has `failed`, and its files
    are as before. `saved` is the restore point of the state before, `prompts` is how many were undone."""

    status: str
    restore_point: str | None
    message_id: str | None
    restored: str | None
    files_of: datetime | None
    saved: str | None
    fell_back: bool | None
    prompts: int | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class ForkedFromEvent(Event):
    """The session was created with the files of a restore point of the session `uuid`."""

    uuid: str
    restore_point: str
    files_of: datetime | None


@dataclass(frozen=True, kw_only=True)
class FilesLostEvent(Event):
    """The volume is gone; its files of `files_of` are being restored. `kept` names the old volume if it is only out of
    reach."""

    restore_from: str
    files_of: datetime | None
    kept: str | None


@dataclass(frozen=True, kw_only=True)
class FilesRestoredEvent(Event):
    """The files are there again, those of `files_of`; of an older restore point if that `fell_back`."""

    restore_from: str
    files_of: datetime | None
    fell_back: bool


@dataclass(frozen=True, kw_only=True)
class IdleWarningEvent(Event):
    """The session will sleep soon unless it is used."""

    sleeps_at: datetime | None
    why: str


@dataclass(frozen=True, kw_only=True)
class BudgetEvent(Event):
    """A budget is nearly used up, in dollars; `owner` is `user` or `key`."""

    cost: float
    budget: float
    owner: str


@dataclass(frozen=True, kw_only=True)
class RiskEvent(Event):
    """Unsaved work that the stop puts at risk, by kind: `{"count", "names"}`. `complete` if all was looked at."""

    unsaved: Mapping[str, Any] | None
    uncommitted: Mapping[str, Any] | None
    unpushed: Mapping[str, Any] | None
    jobs: Mapping[str, Any] | None
    complete: bool


@dataclass(frozen=True, kw_only=True)
class RevokedEvent(Event):
    """All access of an earlier epoch was revoked."""

    access_epoch: int


@dataclass(frozen=True, kw_only=True)
class MessageEvent(Event):
    """A prompt came to another state; once it is finished, with its response."""

    uuid: str | None
    message_id: str
    state: str
    message: str | None
    response: Mapping[str, Any] | None
    reason: str | None
    created_at: datetime | None
    delivered_at: datetime | None
    processed_at: datetime | None
    rolled_back_at: datetime | None

    @property
    def finished(self) -> bool:
        """Whether the prompt has come to its end, a good or a bad one."""
        return self.state in FINISHED

    @property
    def text(self) -> str:
        """The agent's answer, "" without one."""
        return str((self.response or {}).get("text", ""))


@dataclass(frozen=True, kw_only=True)
class HeldEvent(MessageEvent):
    """The session was put to sleep before the prompt was done: it waits for the next wake or prompt."""

    session: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class TokenEvent(Event):
    """Text of the agent's answer. With `again` the text begins anew: what came before broke off."""

    message_id: str
    text: str
    again: bool | None


@dataclass(frozen=True, kw_only=True)
class ToolCallEvent(Event):
    """The agent uses a tool. Long arguments are cut: `arguments` is then a text."""

    message_id: str
    call_id: str | None
    name: str | None
    arguments: Any


@dataclass(frozen=True, kw_only=True)
class ToolResultEvent(Event):
    """What a tool answered; a long text is cut."""

    message_id: str
    call_id: str | None
    name: str | None
    ok: bool | None
    text: str | None


@dataclass(frozen=True, kw_only=True)
class OutputEvent(Event):
    """The next of a command's output; bytes that are no UTF-8 are U+FFFD."""

    text: str


@dataclass(frozen=True, kw_only=True)
class StdoutEvent(OutputEvent):
    """The next that a command wrote to its standard output."""


@dataclass(frozen=True, kw_only=True)
class StderrEvent(OutputEvent):
    """The next that a command wrote to its standard error."""


@dataclass(frozen=True, kw_only=True)
class ExitEvent(ExecEntry, Event):
    """A command has ended: the last event about it."""


@dataclass(frozen=True, kw_only=True)
class LogEvent(Event):
    """The next of a service's log; bytes that are no UTF-8 are U+FFFD."""

    text: str


@dataclass(frozen=True, kw_only=True)
class StoppedEvent(Service, Event):
    """A service has ended and is not started again: the last event about it."""


@dataclass(frozen=True, kw_only=True)
class FilesResetEvent(Event):
    """The changes before this are not told: list `path` again. Unless this is `complete`, the workspace has more
    folders than are watched, of which the deepest are not."""

    path: str
    complete: bool


@dataclass(frozen=True, kw_only=True)
class FilesChangedEvent(Event):
    """What changed at `path` and below it. Take away what is `gone`, with all below it, then put the `entries` in their
    places."""

    path: str
    gone: tuple[GonePath, ...]
    entries: tuple[FileEntry, ...]


@dataclass(frozen=True, kw_only=True)
class FilesAsleepEvent(Event):
    """The workspace does not run, so nothing in it changes; once it does a `FilesResetEvent` follows."""

    status: str


@dataclass(frozen=True, kw_only=True)
class FeedBegin(Event):
    """The begin of a stream over all sessions. Unless it is `complete`, events after the one to resume at are missing:
    read the lists again."""

    complete: bool


@dataclass(frozen=True, kw_only=True)
class FeedEvent(Event):
    """What happened in one of all sessions."""

    uuid: str
    user_id: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class FeedState(FeedEvent):
    """A session's state; a deleted session's last one is `terminated`."""

    status: str
    reason: str | None
    reason_code: str | None
    backup: str | None


@dataclass(frozen=True, kw_only=True)
class FeedPhase(FeedEvent):
    """A sleeping session is `archived` now: its files have no volume any more. Other steps are not told."""

    phase: str


@dataclass(frozen=True, kw_only=True)
class FeedBackup(FeedEvent):
    """A backup that was asked for is `done`, or has `failed`."""

    status: str
    name: str | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class FeedRestorePoint(FeedEvent):
    """A restore point is `done`, or an attempt at one `failed`. Those that found nothing new are left out."""

    status: str
    restore_point: str | None
    saved_at: datetime | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class FeedFilesLost(FeedEvent):
    """A volume is gone; its files of `files_of` are being restored. `kept` names the old volume if it is only out of
    reach."""

    restore_from: str
    files_of: datetime | None
    kept: str | None


@dataclass(frozen=True, kw_only=True)
class FeedFilesRestored(FeedEvent):
    """A session's files are there again, those of `files_of`; of an older restore point if that `fell_back`."""

    restore_from: str
    files_of: datetime | None
    fell_back: bool


@dataclass(frozen=True, kw_only=True)
class FeedRolledBack(FeedEvent):
    """A session was rolled back, or a rollback has `failed` and its files are as before."""

    status: str
    restore_point: str | None
    message_id: str | None
    files_of: datetime | None
    fell_back: bool | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class FeedDrillFailed(FeedEvent):
    """A drill found a restore point broken; a new one is made."""

    restore_point: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class FeedMessage(FeedEvent):
    """A prompt was processed, or has failed."""

    message_id: str
    state: str
    reason: str | None


FEED_TYPES: Mapping[str, type[Event]] = {
    "begin": FeedBegin,
    "state": FeedState,
    "phase": FeedPhase,
    "backup": FeedBackup,
    "restore_point": FeedRestorePoint,
    "drill_failed": FeedDrillFailed,
    "files_lost": FeedFilesLost,
    "files_restored": FeedFilesRestored,
    "rolled_back": FeedRolledBack,
    "message": FeedMessage,
}
"""The class of each type in the stream over all sessions."""

TYPES: Mapping[str, type[Event]] = {
    "state": StateEvent,
    "phase": PhaseEvent,
    "backup": BackupEvent,
    "restore_point": RestorePointEvent,
    "drill_failed": DrillFailedEvent,
    "files_lost": FilesLostEvent,
    "files_restored": FilesRestoredEvent,
    "rolled_back": RolledBackEvent,
    "forked_from": ForkedFromEvent,
    "idle_warning": IdleWarningEvent,
    "budget": BudgetEvent,
    "risk": RiskEvent,
    "revoked": RevokedEvent,
    "message": MessageEvent,
    "held": HeldEvent,
    "token": TokenEvent,
    "tool_call": ToolCallEvent,
    "tool_result": ToolResultEvent,
}
"""The class of each type in a session's streams."""

EXEC_TYPES: Mapping[str, type[Event]] = {"stdout": StdoutEvent, "stderr": StderrEvent, "exit": ExitEvent}
"""The class of each type in the stream of a command."""

SERVICE_TYPES: Mapping[str, type[Event]] = {"log": LogEvent, "stopped": StoppedEvent}
"""The class of each type in the stream of a service's log."""


FILE_TYPES: Mapping[str, type[Event]] = {
    "reset": FilesResetEvent,
    "changed": FilesChangedEvent,
    "asleep": FilesAsleepEvent,
}
"""The class of each type in the stream of changes of files."""


def typed(event: Raw, types: Mapping[str, type[Event]] = TYPES) -> Event:
    """The event as its class."""
    kind = types.get(event.type, Event)
    made = decode(kind, {**event.data, "id": event.id, "type": event.type}, f"the event {event.type}")
    return dataclasses.replace(made, raw=event.data)


def ends_session(event: Event) -> bool:
    """Whether nothing can come after it."""
    return isinstance(event, StateEvent) and event.status == Status.TERMINATED
