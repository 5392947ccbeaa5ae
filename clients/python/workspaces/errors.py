"""What goes wrong, as classes: by the `error` code of a problem document, else by the status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class WorkspacesError(Exception):
    """The base of every error of this package.

    `detail` is a sentence for people. `code` is stable, for programs; `status` the HTTP status, 0 without an answer.
    `errors` has the texts of each invalid field, `request_id` finds the call in the service's logs, `retry_after` is in
    seconds, and `body` is the whole problem document.
    """

    code = "error"
    status = 0

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        errors: Mapping[str, Sequence[str]] | None = None,
        retry_after: float | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.status = status if status is not None else self.status
        self.request_id = request_id
        self.errors = dict(errors or {})
        self.retry_after = retry_after
        self.body = dict(body or {})

    def __str__(self) -> str:
        fields = "; ".join(f"{name}: {' '.join(texts)}" for name, texts in self.errors.items())
        return f"{self.detail} ({fields})" if fields else self.detail


class ConfigError(WorkspacesError):
    """The address or the key of the service is missing or invalid."""

    code = "not_configured"


class ConnectionFailed(WorkspacesError):
    """The service did not answer, or the connection broke."""

    code = "connection_failed"


class TimedOut(ConnectionFailed):
    """The service did not answer in time."""

    code = "timed_out"


class WaitTimedOut(WorkspacesError):
    """The deadline of a wait passed; what was waited for goes on."""

    code = "wait_timed_out"


class InvalidAnswer(WorkspacesError):
    """The answer is not what the API promises: another service may be at this address."""

    code = "invalid_answer"


class DownloadDamaged(WorkspacesError):
    """A downloaded file differs from its checksum, or an archive is damaged, or leads out of its folder; nothing was
    kept of it."""

    code = "download_damaged"


class ApiError(WorkspacesError):
    """The service refused or failed; its subclasses say how."""


class InvalidRequest(ApiError):
    """A value is invalid; `errors` names the fields."""


class InvalidPath(InvalidRequest):
    """The path is none of a file in the workspace."""

    code = "invalid_path"


class InvalidArchive(InvalidRequest):
    """It is no such archive, is damaged, or has an entry that can't be placed in the folder; nothing of it was."""

    code = "invalid_archive"


class Unauthorized(ApiError):
    """The API key is missing or wrong."""


class Forbidden(ApiError):
    """The API key may not do this."""


class BudgetExceeded(Forbidden):
    """The month's budget of the user or the key is used up."""


class NotFound(ApiError):
    """It never existed, was deleted, or is not visible to this key."""


class SessionNotFound(NotFound):
    """There is no such session."""


class BackupNotFound(NotFound):
    """There is no such backup."""


class MessageNotFound(NotFound):
    """There is no such message."""


class ExecNotFound(NotFound):
    """The workspace knows no such command; of those that have ended it keeps the newest."""


class ServiceNotFound(NotFound):
    """The workspace has no service of that name."""


class NoSuchFile(NotFound):
    """The workspace has no such file or folder."""


class DeadLetterNotFound(NotFound):
    """There is no such dead letter."""


class Conflict(ApiError):
    """The present state forbids it."""


class StateConflict(Conflict):
    """The session's state forbids it, or a newer request replaced this one."""


class Asleep(StateConflict):
    """The session sleeps, and the call was not to wake it."""


class QuotaExceeded(Conflict):
    """The user has as many sessions as allowed."""


class TooManyServices(Conflict):
    """The workspace has as many services as allowed; stop one first."""


class TooManyPorts(Conflict):
    """All opened ports of the session are public, and there are as many as allowed; close one first."""


class StartFailed(Conflict):
    """The session did not start; `uuid` names it, if it was just created."""

    @property
    def uuid(self) -> str | None:
        return self.body.get("uuid")


class StopFailed(Conflict):
    """The session did not stop."""


class TeardownFailed(Conflict):
    """The session was not deleted, and nothing of it; delete it again once the cause is gone."""


class BackupFailed(Conflict):
    """The backup that was asked for could not be made; the session goes on."""


class BackupIncomplete(Conflict):
    """Files can't be read; `backup="partial"` accepts a backup without them."""


class BackupInUse(Conflict):
    """A session is still to be restored from this backup."""


class RestorePointNotFound(NotFound):
    """The session has no such restore point."""


class RestorePointsOff(Conflict):
    """The service makes no restore points: its operator has set no ARCHIVE_KEY."""


class NotAFile(Conflict):
    """A folder or a device is where a file is needed, or a file where a folder is needed."""


class FileDenied(Conflict):
    """The workspace's own user may not do that with the file."""


class FileThere(Conflict):
    """Something is there by the new name; nothing was moved."""


class InputMoved(Conflict):
    """Somebody else typed into this terminal as well; `execs.get` says where its input stands."""

    code = "input_moved"


class NoTerminal(Conflict):
    """The command has ended, or has no terminal."""

    code = "no_terminal"


class RequestInProgress(Conflict):
    """The first request with this idempotency key has not ended."""


class FileChanged(ApiError):
    """The file is not, or no longer, the one that was meant."""

    code = "file_changed"


class TooLarge(ApiError):
    """The request, or a prompt, is larger than allowed."""


class KeyReused(ApiError):
    """The idempotency key, or the id of a message or command, was used for another request."""


class RateLimited(ApiError):
    """Too many requests; `retry_after` says when to go on."""


class TooManyAtOnce(RateLimited):
    """Too many streams, waiting calls or commands at a time; end some."""


class InboxFull(RateLimited):
    """Too many prompts wait."""


class ServerError(ApiError):
    """The service failed."""


class ServiceUnavailable(ServerError):
    """The service can't answer for now."""


class NotConfigured(ServiceUnavailable):
    """The service was started without what this call needs."""


class WakeLate(ServerError):
    """The workspace was not up in time, so nothing was done there; it goes on starting: repeat the call."""


class RestorePointLate(ServerError):
    """A restore point that is needed is still being made; roll back again, or fork from it once it is listed."""


class StorageFull(ServerError):
    """The service has no room; delete what is not needed."""


class NotWatched(ServiceUnavailable):
    """The machine of the workspace can watch no more files; list them again now and then instead."""


class WorkspaceFull(StorageFull):
    """The workspace's volume has no room for it; delete what is not needed there."""


BY_CODE: Mapping[str, type[ApiError]] = {
    "invalid_request": InvalidRequest,
    "unauthorized": Unauthorized,
    "budget_exceeded": BudgetExceeded,
    "session_not_found": SessionNotFound,
    "backup_not_found": BackupNotFound,
    "message_not_found": MessageNotFound,
    "exec_not_found": ExecNotFound,
    "service_not_found": ServiceNotFound,
    "dead_letter_not_found": DeadLetterNotFound,
    "payload_too_large": TooLarge,
    "file_not_found": NoSuchFile,
    "not_a_file": NotAFile,
    "file_denied": FileDenied,
    "file_exists": FileThere,
    "file_changed": FileChanged,
    "input_moved": InputMoved,
    "no_terminal": NoTerminal,
    "invalid_path": InvalidPath,
    "invalid_archive": InvalidArchive,
    "not_watched": NotWatched,
    "workspace_full": WorkspaceFull,
    "illegal_state": StateConflict,
    "superseded": StateConflict,
    "asleep": Asleep,
    "quota_exceeded": QuotaExceeded,
    "too_many_services": TooManyServices,
    "too_many_ports": TooManyPorts,
    "start_failed": StartFailed,
    "stop_failed": StopFailed,
    "teardown_failed": TeardownFailed,
    "backup_failed": BackupFailed,
    "backup_incomplete": BackupIncomplete,
    "backup_in_use": BackupInUse,
    "restore_point_not_found": RestorePointNotFound,
    "restore_points_off": RestorePointsOff,
    "rollback_failed": StateConflict,
    "restore_point_late": RestorePointLate,
    "wake_late": WakeLate,
    "request_in_progress": RequestInProgress,
    "idempotency_key_reused": KeyReused,
    "message_id_reused": KeyReused,
    "exec_id_reused": KeyReused,
    "rate_limited": RateLimited,
    "too_many_streams": TooManyAtOnce,
    "too_many_waits": TooManyAtOnce,
    "too_many_agent_calls": TooManyAtOnce,
    "too_many_execs": TooManyAtOnce,
    "too_many_transfers": TooManyAtOnce,
    "inbox_full": InboxFull,
    "user_inbox_full": InboxFull,
    "busy": ServiceUnavailable,
    "state_unavailable": ServiceUnavailable,
    "llm_not_configured": NotConfigured,
    "agent_not_configured": NotConfigured,
    "forward_auth_not_configured": NotConfigured,
    "insufficient_storage": StorageFull,
}
"""The class of each code that has one."""

BY_STATUS: Mapping[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: FileChanged,
    413: TooLarge,
    422: KeyReused,
    429: RateLimited,
    503: ServiceUnavailable,
    507: StorageFull,
}


def error_class(code: str, status: int) -> type[ApiError]:
    """The class of an error: by its code, else by its status."""
    return BY_CODE.get(code) or BY_STATUS.get(status) or (ServerError if status >= 500 else ApiError)
