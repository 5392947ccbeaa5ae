"""The names and queues of the tasks, and how to enqueue one without importing a worker."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from app.core.redis.errors import redis_errors
from app.process import tracing
from app.process.redis_address import celery_broker

log = logging.getLogger(__name__)

PROVISION = "sessions.provision"
WAKE = "sessions.wake"
SLEEP = "sessions.sleep"
BACKUP = "sessions.backup"
POINT = "sessions.point"
DRILL = "sessions.drill"
RESTORE = "sessions.restore"
ROLLBACK = "sessions.rollback"
LEAVE = "sessions.leave"
TEARDOWN = "sessions.teardown"
ARCHIVE = "sessions.archive"
ERASE = "sessions.erase"
DELIVER = "sessions.deliver"
WARN = "sessions.warn"
LOCK_OUT = "sessions.lock_out"
REPLACE = "sessions.replace"
TELL_FILES = "sessions.tell_files"
LOST = "sessions.lost"
RENEW_TOKEN = "sessions.renew_token"
LOOK_AGAIN = "sessions.look_again"
TOKEN_ENDED = "sessions.token_ended"

START_KINDS = {PROVISION: "create", RESTORE: "restore", ROLLBACK: "rollback", WAKE: "wake"}
"""The tasks that start a workspace, and the names of these starts in logs and metrics."""

READ_BACKUP = "backups.read"
DELETE_BACKUP = "backups.delete"
CHECK_STORES = "backups.check_stores"

SWEEPS = "sweeps."
SWEEP_IDLE = SWEEPS + "idle"
SWEEP_EXPIRED = SWEEPS + "expired"
SWEEP_STALE = SWEEPS + "stale"
SWEEP_POINTS = SWEEPS + "points"
SWEEP_DRILLS = SWEEPS + "drills"
RECONCILE = SWEEPS + "reconcile"
SWEEP_INDEX = SWEEPS + "index"
SWEEP_RETENTION = SWEEPS + "retention"
CHECK_POLICIES = SWEEPS + "policies"

QUEUES = ("wake", "deliver", "lifecycle", "sweep", "backup")

BACKUP_QUEUE = "backup"
USING_STORES = frozenset({"lifecycle", BACKUP_QUEUE})
"""The queues whose workers store conversations; those of `BACKUP_QUEUE` also use the store of backups."""

ROUTES: Mapping[str, str] = {
    PROVISION: "wake",
    WAKE: "wake",
    REPLACE: "wake",
    RENEW_TOKEN: "wake",
    LOOK_AGAIN: "wake",
    DELIVER: "deliver",
    WARN: "deliver",
    LOCK_OUT: "deliver",
    TELL_FILES: "deliver",
    TOKEN_ENDED: "deliver",
    CHECK_POLICIES: "deliver",
    SLEEP: "lifecycle",
    LEAVE: "lifecycle",
    LOST: "lifecycle",
    READ_BACKUP: "lifecycle",
    SWEEP_IDLE: "sweep",
    SWEEP_EXPIRED: "sweep",
    SWEEP_STALE: "sweep",
    SWEEP_POINTS: "sweep",
    SWEEP_DRILLS: "sweep",
    RECONCILE: "sweep",
    BACKUP: "backup",
    POINT: "backup",
    DRILL: "backup",
    RESTORE: "backup",
    ROLLBACK: "backup",
    TEARDOWN: "backup",
    ARCHIVE: "backup",
    ERASE: "backup",
    DELETE_BACKUP: "backup",
    CHECK_STORES: "backup",
    SWEEP_INDEX: "backup",
    SWEEP_RETENTION: "backup",
}
"""The queue of each task. `wake` is for tasks a user waits for, `backup` for those that may take an hour. `deliver` is
for requests to workspaces, which may hang: it has processes of its own, so that no other session waits. These may reach
only workspaces, so they also check that the NetworkPolicies hold. `lifecycle` waits for workspaces to stop, with many
threads, of which some are reserved for `sweep` (workers/tasks.py). A worker refuses a task of another queue
(workers/celery/admission.py)."""

READ_MOST = 10_000
"""Broker messages of a queue that are read; in a longer queue every call counts as waiting."""

Call = tuple[str, tuple[str, ...]]
"""A task and its arguments as texts."""


class Waiting:
    """A snapshot of the broker messages that no worker has taken yet."""

    def __init__(self, calls: frozenset[Call], long: frozenset[str]) -> None:
        self._calls = calls
        self._long = long

    def has(self, task: str, *args: str | int) -> bool:
        """Whether a broker message for this call waits in its queue."""
        return ROUTES[task] in self._long or (task, tuple(map(str, args))) in self._calls


class TaskQueue:
    """Enqueues tasks by name. A failure is only logged: the intent is recorded, and the stale sweep enqueues it again.
    `client` is the broker's Redis."""

    def __init__(self, client: redis.Redis, broker_url: str, visibility_timeout: float, timeout: float) -> None:
        self._redis = client
        self._celery = Celery("sessions")
        self._celery.conf.update(
            **celery_broker(broker_url),
            task_ignore_result=True,
            broker_connection_timeout=timeout,
            broker_transport_options=transport_options(visibility_timeout, timeout),
        )
        # Loading the transport takes 0.1 s, which the first caller would wait for. This connects to nothing.
        with self._celery.connection_for_write() as connection:
            connection.transport  # noqa: B018

    def send(self, task: str, *args: str | int, request_id: str = "") -> None:
        """Enqueue `task`; logged when the broker can't be reached."""
        said: dict[str, Any] = {
            "request_id": request_id,
            CALL: [task, *map(str, args)],
            ENQUEUED_AT: round(time.time(), 3),
        }
        queue = ROUTES[task]
        try:
            with tracing.span(f"send {queue}", {"messaging.destination.name": queue}, kind="producer"):
                if parent := tracing.traceparent():
                    said[tracing.HEADER] = parent
                self._celery.send_task(task, args=args, queue=queue, headers=said, retry=False)
        except OperationalError:
            log.warning("task not enqueued, the stale sweep will enqueue it", extra={"task": task, "task_args": args})

    def waiting(self) -> Waiting:
        """The calls that wait in the queues now and need no second broker message. Those a worker took and lost are not
        among them. Raises `StateUnavailable`."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for name in QUEUES:
                pipe.lrange(name, 0, READ_MOST)
            found = dict(zip(QUEUES, pipe.execute(), strict=True))
        calls = frozenset(call for messages in found.values() for call in map(_call_of, messages) if call)
        return Waiting(calls, frozenset(name for name, messages in found.items() if len(messages) > READ_MOST))


CALL = "call"
"""The header of a broker message that names its call, so that its body need not be read."""


ENQUEUED_AT = "enqueued_at"
"""The header of a broker message with the time it was enqueued (s since the epoch)."""


def enqueued_at(message: str, unknown: float) -> float:
    """When a stored broker message was enqueued; `unknown` for one that does not say."""
    try:
        return float(json.loads(message)["headers"][ENQUEUED_AT])
    except (ValueError, KeyError, TypeError):
        return unknown


def _call_of(message: str) -> Call | None:
    """The call a stored broker message names, None for one that names none."""
    try:
        said: Any = json.loads(message)["headers"][CALL]
        return str(said[0]), tuple(map(str, said[1:]))
    except (ValueError, KeyError, TypeError, IndexError):
        return None


def transport_options(visibility_timeout: float, timeout: float) -> dict[str, float]:
    """Options of the Redis broker (s) that must be the same for producers and workers."""
    return {
        "visibility_timeout": visibility_timeout,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
    }
