"""The names of the tasks, the queue of each, and how the web process enqueues one without importing a worker."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from celery import Celery
from kombu.exceptions import OperationalError

log = logging.getLogger(__name__)

PROVISION = "sessions.provision"
WAKE = "sessions.wake"
SLEEP = "sessions.sleep"
BACKUP = "sessions.backup"
RESTORE = "sessions.restore"
TEARDOWN = "sessions.teardown"
DELIVER = "sessions.deliver"
WARN = "sessions.warn"
LOCK_OUT = "sessions.lock_out"

READ_BACKUP = "backups.read"
DELETE_BACKUP = "backups.delete"

SWEEPS = "sweeps."
SWEEP_IDLE = SWEEPS + "idle"
SWEEP_EXPIRED = SWEEPS + "expired"
SWEEP_STALE = SWEEPS + "stale"
RECONCILE = SWEEPS + "reconcile"
SWEEP_INDEX = SWEEPS + "index"
SWEEP_RETENTION = SWEEPS + "retention"

QUEUES = ("wake", "deliver", "lifecycle", "backup")

ROUTES: Mapping[str, str] = {
    PROVISION: "wake",
    WAKE: "wake",
    DELIVER: "deliver",
    WARN: "deliver",
    LOCK_OUT: "deliver",
    SLEEP: "lifecycle",
    READ_BACKUP: "lifecycle",
    SWEEP_IDLE: "lifecycle",
    SWEEP_EXPIRED: "lifecycle",
    SWEEP_STALE: "lifecycle",
    RECONCILE: "lifecycle",
    BACKUP: "backup",
    RESTORE: "backup",
    TEARDOWN: "backup",
    DELETE_BACKUP: "backup",
    SWEEP_INDEX: "backup",
    SWEEP_RETENTION: "backup",
}
"""Which queue a task goes to: `wake` is what a user waits for, `backup` what may take an hour. `deliver` speaks to
what runs in a workspace, which may hang: it has processes of its own, so that no other session waits for that."""


class TaskQueue:
    """Enqueues tasks by name. A message that can't be sent is no error: the intent is recorded, and the
    stale sweep enqueues it again."""

    def __init__(self, broker_url: str, visibility_timeout: float, timeout: float) -> None:
        self._celery = Celery("sessions", broker=broker_url)
        self._celery.conf.update(
            task_ignore_result=True,
            broker_connection_timeout=timeout,
            broker_transport_options=transport_options(visibility_timeout, timeout),
        )
        # Loads the transport, 0.1 s, which the first caller would otherwise wait for; connects to nothing.
        with self._celery.connection_for_write() as connection:
            connection.transport  # noqa: B018

    def send(self, task: str, *args: str | int, request_id: str = "") -> None:
        """Enqueue `task`; logged when the broker can't be reached."""
        try:
            self._celery.send_task(
                task,
                args=args,
                queue=ROUTES[task],
                headers={"request_id": request_id},
                retry=False,
            )
        except OperationalError:
            log.warning("task not enqueued, the stale sweep will do it", extra={"task": task, "task_args": args})


def transport_options(visibility_timeout: float, timeout: float) -> dict[str, float]:
    """What producers and workers must agree on about the Redis broker (s)."""
    return {
        "visibility_timeout": visibility_timeout,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
    }
