"""Tries again what a dead letter was about.

The intent of a dead letter is settled: its session is `failed`, or its backup was dropped. So the same message would do
nothing, and a retry is a new intent with a new count of attempts.
"""

from __future__ import annotations

from app.core.errors import IllegalState, SessionNotFound
from app.core.redis import task_queue
from app.core.redis.dead_letters import DeadLetter
from app.core.service import SessionService
from app.core.sessions.model import Record, Status

DELETIONS = frozenset({task_queue.LEAVE, task_queue.TEARDOWN})


def retry(sessions: SessionService, letter: DeadLetter, request_id: str = "") -> Record:
    """Record the intent of a dead letter anew and enqueue it. Raises `IllegalState` if that makes no sense: the session
    is gone or was changed since, or the task has no way back."""
    uuid = letter.uuid
    try:
        record = sessions.get(uuid)
    except SessionNotFound as error:
        raise IllegalState(f"Session {uuid} no longer exists: drop this dead letter.") from error
    if record.status is Status.TERMINATED:
        raise IllegalState(f"Session {uuid} is deleted: drop this dead letter.")
    if letter.task == task_queue.BACKUP:
        return sessions.request_backup(uuid, request_id)
    if letter.generation != record.generation or record.status is not Status.FAILED:
        raise IllegalState(
            f"Session {uuid} is `{record.status}` by a newer call: nothing is left to retry. Drop this dead letter."
        )
    if letter.task in task_queue.START_KINDS:
        return sessions.wake(uuid, request_id)
    if letter.task in DELETIONS:
        return sessions.delete(uuid, backup=record.delete_backup, partial=record.delete_partial, request_id=request_id)
    raise IllegalState(
        f"Session {uuid} failed to stop, which can't be tried again. Wake it or delete it, then drop this dead letter."
    )
