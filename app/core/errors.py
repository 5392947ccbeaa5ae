"""The errors of the core; those of limits are in app/core/limit_errors.py.

An adapter raises these in place of its library's exceptions. A worker retries a `RetryableError`, never a
`PermanentError`.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from typing import Any


class SessionError(Exception):
    """The base of everything the core raises on purpose. Users see its text."""

    code = "session_error"

    def __reduce__(self) -> tuple[Any, ...]:
        # Many an `__init__` takes other arguments than the text, so pickle must not call it.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class InvalidRequest(SessionError):
    """The caller sent an invalid value."""

    code = "invalid_request"


class SessionNotFound(SessionError):
    """No session has this uuid, or the caller may not see it."""

    code = "session_not_found"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"Session {uuid} does not exist.")


class IllegalState(SessionError):
    """The session's state forbids the request."""

    code = "illegal_state"


class Asleep(IllegalState):
    """The session sleeps, and the call was not to wake it."""

    code = "asleep"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"Session {uuid} does not run, and `wake=false` keeps it so.")


class WakeLate(SessionError):
    """A workspace that a call needs was not up in time."""

    code = "wake_late"

    def __init__(self, uuid: str) -> None:
        super().__init__(
            f"The workspace of session {uuid} was not up in time, so nothing was done there; it goes on starting. "
            "Repeat the call."
        )


class ExecNotFound(SessionError):
    """The workspace knows no command with this id."""

    code = "exec_not_found"

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"This workspace knows no command {exec_id[:64]}; of ended ones it keeps the newest.")


class ExecIdReused(SessionError):
    """This id was used for another command before."""

    code = "exec_id_reused"

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"The id {exec_id} was used for another command before; choose a new one.")


class NoTerminal(SessionError):
    """The command has ended, or has no terminal."""

    code = "no_terminal"

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"The command {exec_id} has ended, or has no terminal: begin one with `tty`.")


class InputMoved(SessionError):
    """The input of a terminal does not stand where the caller means."""

    code = "input_moved"

    def __init__(self, exec_id: str) -> None:
        super().__init__(
            f"The input of the command {exec_id} does not stand at `at`: something else was typed there. Look at its "
            "`input_bytes`, and type on from there."
        )


class ServiceNotFound(SessionError):
    """The workspace has no service of this name."""

    code = "service_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"This workspace has no service {name[:32]}.")


class FileRefused(SessionError):
    """A workspace refused a call on its files; `code` says why (`FileFault` of app/agent/protocol.py), and what the
    agent said stands in the text."""

    TEXTS: Mapping[str, str] = {
        "invalid_path": "The path leads out of the workspace, or no file can have it",
        "file_denied": "The workspace's user may not do that",
        "file_not_found": "There is no such file or folder",
        "file_exists": "There is something already",
        "file_changed": "The file is not, or no longer, the one that the call means",
        "not_a_file": "A file is needed, or a folder, where the path has something else",
        "workspace_full": "The workspace's disk is full, so nothing was written; delete something first",
        "not_watched": "The machine can watch no more files of workspaces; list them again now and then instead",
        "invalid_archive": "The body is no archive that can be unpacked here, so nothing was written",
    }

    def __init__(self, code: str, said: str) -> None:
        self.code = code
        told = f" (the workspace says: {said.removesuffix('.')})" if said else ""
        super().__init__(f"{self.TEXTS[code]}{told}.")


class KeyReused(SessionError):
    """This Idempotency-Key was used for another request before."""

    code = "idempotency_key_reused"


class PromptNotFound(SessionError):
    """The session has no prompt with this id, or the prompt has expired."""

    code = "message_not_found"

    def __init__(self, message_id: str) -> None:
        super().__init__(f"This session has no message {message_id}.")


class PromptTooLarge(SessionError):
    """A prompt is longer than `PROMPT_MAX_BYTES`."""

    code = "message_too_large"


class PromptIdReused(SessionError):
    """This id was used for another text before."""

    code = "message_id_reused"


class BackupInUse(SessionError):
    """A session still needs this backup."""

    code = "backup_in_use"


class RestorePointsOff(IllegalState):
    """The service has no ARCHIVE_KEY, so it makes no restore points."""

    code = "restore_points_off"

    def __init__(self) -> None:
        super().__init__("This service makes no restore points: its operator has set no ARCHIVE_KEY.")


class RestorePointNotFound(SessionError):
    """The session has no such restore point."""

    code = "restore_point_not_found"

    def __init__(self, uuid: str, what: str) -> None:
        super().__init__(f"Session {uuid} has no {what}; GET /session/{uuid}/restore-points lists those it has.")


class RestorePointLate(SessionError):
    """A restore point that a call needs is still being made."""

    code = "restore_point_late"


class DeadLetterNotFound(SessionError):
    """No dead letter has this id; it may have been retried or dropped."""

    code = "dead_letter_not_found"

    def __init__(self, letter_id: str) -> None:
        super().__init__(f"There is no dead letter {letter_id}; it may have been retried or dropped.")


class StateUnavailable(SessionError):
    """Redis is unreachable, or did not answer in time."""

    code = "state_unavailable"


class StoreFull(StateUnavailable):
    """Redis has no room for anything new. Requests that free room still work."""

    code = "insufficient_storage"

    def __init__(self) -> None:
        super().__init__(
            "The state store is full and accepts nothing new. Sleep and delete still work: delete sessions you do not "
            "need, or retry later."
        )


class Superseded(SessionError):
    """A newer intent exists; the worker with the older one must stop and change nothing."""

    code = "superseded"


class RetryableError(SessionError):
    """A retry may succeed: something outside was temporarily unavailable."""

    code = "temporarily_unavailable"


class BackupRetired(RetryableError):
    """A backup with this name is being deleted; the next backup gets another name."""

    code = "backup_retired"

    def __init__(self, name: str) -> None:
        super().__init__(f"Backup {name} is being deleted; retry.")


class StillEnding(RetryableError):
    """Processes of a stopped workspace are still running: check again until they have ended."""

    code = "still_ending"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"The processes of workspace {uuid} are still ending.")


class RuntimeUnavailable(RetryableError):
    """The runtime is unreachable, which is no failure of any one session."""

    code = "runtime_unavailable"


class AgentUnavailable(RetryableError):
    """The agent of a workspace is unreachable, did not answer in time, or is shutting down."""

    code = "agent_unavailable"


class AgentNotReady(AgentUnavailable):
    """The agent refuses connections or reports that it is not ready; it may be in a moment."""

    code = "agent_not_ready"


class AgentRefused(SessionError):
    """The agent rejected this request; a retry will not help."""

    code = "agent_refused"


class UploadLost(RetryableError):
    """The workspace's agent knows nothing of the file or the archive that is on its way."""

    def __init__(self) -> None:
        super().__init__("The workspace's agent started anew meanwhile. Repeat the call.")


class PermanentError(SessionError):
    """A retry will not help; the session becomes `failed` with this text as its reason."""

    code = "failed"


class BackupNotFound(PermanentError):
    """No backup has this name, or the caller may not see it."""

    code = "backup_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"Backup {name} does not exist.")


class FilesGone(PermanentError):
    """The session's volume does not exist: there is nothing to run, back up or lose."""

    code = "files_gone"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"The files of workspace {uuid} no longer exist.")


class FilesGoing(PermanentError):
    """Someone outside the service deleted the session's volume; its files last while the workspace runs."""

    code = "files_going"

    def __init__(self) -> None:
        super().__init__(
            "The volume of this workspace is being deleted by someone else; its files are lost once the workspace "
            "stops. Delete the session: its files are backed up first, while they exist."
        )


class WorkspaceConflict(PermanentError):
    """An object with the name of this session's workspace belongs to another session."""

    code = "workspace_conflict"


class ArchiveError(PermanentError):
    """A file store refused: a backup or a conversation could not be written, read or verified."""

    code = "archive_error"


class PointsBroken(ArchiveError):
    """Of each restore point that may be restored, data is missing; nothing was replaced."""

    code = "restore_points_broken"


class BackupIncomplete(PermanentError):
    """Unreadable files would be missing from a backup that must be complete; no backup was made."""

    code = "backup_incomplete"


class NoSpace(ArchiveError):
    """The disk is full; nothing was replaced or deleted."""

    code = "no_space"
