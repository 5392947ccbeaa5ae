"""The declarations of all tasks, and how to enqueue one without importing a worker."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from app.core.redis.connections import COMMAND_TIMEOUT
from app.core.redis.errors import redis_errors
from app.core.redis.heartbeats import POLICIES_LOOKED_AT
from app.process import tracing
from app.process.redis_address import celery_broker
from app.process.settings import Settings

log = logging.getLogger(__name__)

QUEUES = ("wake", "deliver", "lifecycle", "sweep", "backup")
"""`wake` is for tasks a user waits for, `backup` for those that may take an hour. `deliver` is for requests to
workspaces, which may hang: it has processes of its own, so that no other session waits. These may reach only
workspaces, so they also check that the NetworkPolicies hold. `lifecycle` waits for workspaces to stop, with many
threads, of which some are reserved for `sweep` (workers/tasks.py). A worker refuses a task of another queue
(workers/celery/admission.py)."""

BACKUP_QUEUE = "backup"
USING_STORES = frozenset({"lifecycle", BACKUP_QUEUE})
"""The queues whose workers store conversations; those of `BACKUP_QUEUE` also use the store of backups."""

SHORT_TASK_LIMIT = 80.0
"""s after which a task is killed that is not `long`, as a wake, a sleep or a sweep. The slowest sleep takes 66 s."""

SWEEP_INTERVAL = 1.0
"""s between sweeps for what is idle, expired, stale, or due for a restore point. Each reads one range."""

Interval = Callable[[Settings], float | None]
"""The seconds between two messages of beat for a task; None for none."""


@dataclass(frozen=True)
class Task:
    """What is declared of a task. Its function is in workers/tasks.py."""

    queue: str
    long: bool
    """It may take the setting `LONG_TASK_LIMIT`, others `SHORT_TASK_LIMIT`."""
    start: str
    """Its name in logs and metrics as a start of a workspace, "" if it is none."""
    interval: Interval | None
    """Of a sweep: a task that beat sends."""
    events: bool
    """Whether Flower shows it. Three sweeps a second would hide the tasks of sessions."""


TASKS: dict[str, Task] = {}
"""All tasks by name."""


def _task(
    name: str,
    queue: str,
    *,
    long: bool = False,
    start: str = "",
    interval: Interval | None = None,
    events: bool = True,
) -> str:
    """Declare a task; answers its name."""
    TASKS[name] = Task(queue, long, start, interval, events)
    return name


PROVISION = _task("sessions.provision", "wake", start="create")
WAKE = _task("sessions.wake", "wake", start="wake")
REPLACE = _task("sessions.replace", "wake")
RENEW_TOKEN = _task("sessions.renew_token", "wake")
LOOK_AGAIN = _task("sessions.look_again", "wake")
LEAD_PORTS = _task("sessions.lead_ports", "wake")

DELIVER = _task("sessions.deliver", "deliver")
WARN = _task("sessions.warn", "deliver")
DISCONNECT = _task("sessions.disconnect", "deliver")
TELL_FILES = _task("sessions.tell_files", "deliver")
TOKEN_ENDED = _task("sessions.token_ended", "deliver")

SLEEP = _task("sessions.sleep", "lifecycle")
LEAVE = _task("sessions.leave", "lifecycle")
LOST = _task("sessions.lost", "lifecycle")
READ_BACKUP = _task("backups.read", "lifecycle")

BACKUP = _task("sessions.backup", "backup", long=True)
POINT = _task("sessions.point", "backup", long=True)
DRILL = _task("sessions.drill", "backup", long=True)
RESTORE = _task("sessions.restore", "backup", long=True, start="restore")
ROLLBACK = _task("sessions.rollback", "backup", long=True, start="rollback")
TEARDOWN = _task("sessions.teardown", "backup", long=True)
ARCHIVE = _task("sessions.archive", "backup", long=True)
ERASE = _task("sessions.erase", "backup", long=True)
DELETE_BACKUP = _task("backups.delete", "backup")
CHECK_STORES = _task("backups.check_stores", "backup")

SWEEP_IDLE = _task("sweeps.idle", "sweep", interval=lambda settings: SWEEP_INTERVAL, events=False)
SWEEP_EXPIRED = _task("sweeps.expired", "sweep", interval=lambda settings: SWEEP_INTERVAL, events=False)
SWEEP_STALE = _task("sweeps.stale", "sweep", interval=lambda settings: SWEEP_INTERVAL, events=False)
SWEEP_POINTS = _task("sweeps.points", "sweep", interval=lambda settings: SWEEP_INTERVAL, events=False)
SWEEP_DRILLS = _task("sweeps.drills", "sweep", interval=lambda settings: settings.drill_interval, events=False)
RECONCILE = _task("sweeps.reconcile", "sweep", interval=lambda settings: settings.reconcile_interval, events=False)
SWEEP_INDEX = _task(
    "sweeps.index", "backup", long=True, interval=lambda settings: settings.reconcile_interval, events=False
)
SWEEP_RETENTION = _task("sweeps.retention", "backup", long=True, interval=lambda settings: settings.retention_interval)
CHECK_POLICIES = _task(
    "sweeps.policies",
    "deliver",
    # Network policies exist in clusters only.
    interval=lambda settings: POLICIES_LOOKED_AT if settings.runtime == "kubernetes" else None,
    events=False,
)

ROUTES: Mapping[str, str] = {name: task.queue for name, task in TASKS.items()}
"""The queue of each task."""

START_KINDS: Mapping[str, str] = {name: task.start for name, task in TASKS.items() if task.start}
"""The tasks that start a workspace, and the names of these starts in logs and metrics."""

SWEEPS: Mapping[str, Interval] = {name: task.interval for name, task in TASKS.items() if task.interval}
"""The tasks that beat sends, and their intervals."""

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
    `client` is the broker's Redis; `timeout` (s) bounds each of the queue's own commands."""

    def __init__(
        self, client: redis.Redis, broker_url: str, visibility_timeout: float, timeout: float = COMMAND_TIMEOUT
    ) -> None:
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

    @redis_errors
    def waiting(self) -> Waiting:
        """The calls that wait in the queues now and need no second broker message. Those a worker took and lost are not
        among them. Raises `StateUnavailable`."""
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


def visibility_timeout(settings: Settings) -> float:
    """s after which Redis delivers a task again that nobody acknowledged: well above every limit of a task, or a
    running one would be delivered."""
    return 2 * max(settings.long_task_limit, SHORT_TASK_LIMIT)


def transport_options(visibility_timeout: float, timeout: float) -> dict[str, float]:
    """Options of the Redis broker (s) that must be the same for producers and workers."""
    return {
        "visibility_timeout": visibility_timeout,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
    }
