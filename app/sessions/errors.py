"""What can go wrong with a session, in the core's own words.

A library's exceptions stop at its adapter and leave it as one of these. Whether a worker tries
again is the exception's type: `RetryableError` or `PermanentError`.
"""

from __future__ import annotations

import copyreg
from typing import Any


class SessionError(Exception):
    """The base of everything the core raises on purpose. Its text is fit for a user to read."""

    code = "session_error"

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled by what it holds, as many an `__init__` takes something else than the text.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class InvalidRequest(SessionError):
    """A value the caller sent is not acceptable."""

    code = "invalid_request"


class SessionNotFound(SessionError):
    """No session has this uuid, or it is not the caller's to see."""

    code = "session_not_found"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"There is no session {uuid}.")


class IllegalState(SessionError):
    """The session's state forbids what was asked."""

    code = "illegal_state"


class QuotaExceeded(SessionError):
    """The user has as many sessions as one may have."""

    code = "quota_exceeded"


class KeyReused(SessionError):
    """This Idempotency-Key came with something else before."""

    code = "idempotency_key_reused"


class MessageNotFound(SessionError):
    """The session has no message of this id, or none any more."""

    code = "message_not_found"

    def __init__(self, message_id: str) -> None:
        super().__init__(f"There is no message {message_id} in this session.")


class MessageTooLarge(SessionError):
    """A prompt is longer than `MESSAGE_MAX_BYTES`."""

    code = "message_too_large"


class MessageIdReused(SessionError):
    """This id came with another text before."""

    code = "message_id_reused"


class InboxFull(SessionError):
    """As many prompts wait for the session's agent as may, or so long ones."""

    code = "inbox_full"


class UserInboxFull(InboxFull):
    """The prompts and kept answers of all sessions of the user are as long as they may be."""

    code = "user_inbox_full"


class BackupInUse(SessionError):
    """A session is still being restored from this backup."""

    code = "backup_in_use"


class StateUnavailable(SessionError):
    """Redis can't be reached, or did not answer in time."""

    code = "state_unavailable"


class StoreFull(StateUnavailable):
    """Redis has no room for anything new. What frees room goes on."""

    code = "insufficient_storage"

    def __init__(self) -> None:
        super().__init__(
            "The state store is full, so nothing new is taken. Sleeping and deleting work: delete what is not needed, "
            "or try again later."
        )


class Superseded(SessionError):
    """A newer intent exists; whoever carries an older one must stop and change nothing."""

    code = "superseded"


class RetryableError(SessionError):
    """Trying again later may succeed: something outside was unavailable for now."""

    code = "temporarily_unavailable"


class BackupRetired(RetryableError):
    """A backup of this name is being deleted; the next one has another name."""

    code = "backup_retired"

    def __init__(self, name: str) -> None:
        super().__init__(f"The backup {name} is being deleted; try again.")


class StillEnding(RetryableError):
    """Processes of a workspace that was told to stop are still there: ask again, until there are none."""

    code = "still_ending"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"The processes of workspace {uuid} are still ending.")


class RuntimeUnavailable(RetryableError):
    """What runs the workspaces can't be reached at all, which is no failure of any one session's."""

    code = "runtime_unavailable"


class AgentUnavailable(RetryableError):
    """The agent of a workspace can't be reached, did not answer in time, or is shutting down."""

    code = "agent_unavailable"


class AgentNotReady(AgentUnavailable):
    """The agent refuses connections, or says that it can't take anything yet: it may in a moment."""

    code = "agent_not_ready"


class AgentRefused(SessionError):
    """The agent will not take this request, now or later."""

    code = "agent_refused"


class PermanentError(SessionError):
    """Trying again changes nothing; the session becomes `failed` with this text as its reason."""

    code = "failed"


class BackupNotFound(PermanentError):
    """No backup has this name, or it is not the caller's to see."""

    code = "backup_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no backup {name}.")


class FilesGone(PermanentError):
    """The session's volume is not there: there is nothing to run, back up or lose."""

    code = "files_gone"

    def __init__(self, uuid: str) -> None:
        super().__init__(f"The files of workspace {uuid} are gone.")


class FilesGoing(PermanentError):
    """Someone else had the session's volume deleted; its files last for as long as the workspace runs."""

    code = "files_going"

    def __init__(self) -> None:
        super().__init__(
            "The volume with the files of this workspace is being deleted by someone else, and is gone once the "
            "workspace stops. Delete the session: its files are backed up first, while they are there."
        )


class WorkspaceConflict(PermanentError):
    """What stands where this session's workspace belongs is another session's."""

    code = "workspace_conflict"


class ArchiveError(PermanentError):
    """A backup could not be written, verified or restored; the text says which and why."""

    code = "archive_error"


class BackupIncomplete(PermanentError):
    """Files that may not be read would be missing from a backup that has to be whole; none was made."""

    code = "backup_incomplete"


class NoSpace(ArchiveError):
    """The disk is full; nothing was replaced or deleted."""

    code = "no_space"
