"""The Celery tasks: each takes ids and calls the lifecycle or a sweep."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

from app.core.errors import RetryableError, StateUnavailable
from app.core.redis import task_queue
from workers import network_policies, rpc, worker_metrics
from workers.agents import disconnect, notices, token_renewal
from workers.celery.app import app, settings
from workers.celery.base_task import SafeTask
from workers.context import context, core, download_jobs
from workers.lifecycle import port_routes

log = logging.getLogger(__name__)

SHORT = {"time_limit": task_queue.SHORT_TASK_LIMIT, "soft_time_limit": task_queue.SHORT_TASK_LIMIT * 0.9}
LONG = {"time_limit": settings.long_task_limit, "soft_time_limit": settings.long_task_limit * 0.95}

Function = Callable[..., None]

CONCURRENCY_LIMIT = 32
"""Tasks of a process that wait for workspaces at a time. The threads beyond that are for sweeps: the `sweeper` of the
Procfile has 8 more."""

_slots = BoundedSemaphore(CONCURRENCY_LIMIT)


class NoSlot(RetryableError):
    """The concurrency limit of tasks that wait for workspaces is reached."""

    def __init__(self) -> None:
        super().__init__("Too many workspaces are stopping at the moment; try again.")


@contextmanager
def _slot() -> Iterator[None]:
    """Take one of `CONCURRENCY_LIMIT` slots; raises `NoSlot` at once when none is free."""
    if not _slots.acquire(blocking=False):
        raise NoSlot
    try:
        yield
    finally:
        _slots.release()


def _log_deferred(error: Exception, task: str, *args: Any) -> None:
    worker_metrics.deferred()
    log.warning("deferred; the stale sweep will retry: %s", error, extra={"task": task, "task_args": list(args)})


class SessionTask(SafeTask):
    """A task whose retryable errors are left to the stale sweep, which sends the intent again
    (workers/lifecycle/intents.py).

    The same holds while Redis or the runtime is unavailable, for however long: the intent is in the record.
    """

    def attempt(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().attempt(*args, **kwargs)
        except (StateUnavailable, RetryableError) as error:
            _log_deferred(error, self.name, *args)


def task(*names: str, base: type[SafeTask] | None = None) -> Callable[[Function], Function]:
    """Register a function under these names, with what app/core/redis/task_queue.py declares of each."""

    def register(function: Function) -> Function:
        for name in names:
            declared = task_queue.TASKS[name]
            limits = LONG if declared.long else SHORT
            app.task(name=name, base=base, send_events=declared.events, **limits)(function)
        return function

    return register


@task(
    task_queue.PROVISION,
    task_queue.WAKE,
    task_queue.RESTORE,
    task_queue.ROLLBACK,
    task_queue.TEARDOWN,
    task_queue.ARCHIVE,
    base=SessionTask,
)
def carry_out(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@task(task_queue.SLEEP, task_queue.LEAVE, base=SessionTask)
def stop(uuid: str, generation: int) -> None:
    with _slot():
        context().lifecycle.carry_out(uuid, generation)


@task(task_queue.DELIVER)
def deliver(uuid: str) -> None:
    # Its attempts are not counted: many at once are normal. While prompts wait the sweep sends it again.
    try:
        core().delivery.deliver(uuid)
    except StateUnavailable as error:
        _log_deferred(error, task_queue.DELIVER, uuid)


@task(task_queue.WARN)
def warn(uuid: str) -> None:
    notices.warn_of_sleep(core(), uuid, time.time())


@task(task_queue.TELL_FILES)
def tell_files(uuid: str) -> None:
    notices.tell_files(core(), uuid)


@task(task_queue.DISCONNECT)
def end_connections(uuid: str) -> None:
    # Never given up: until the connections are ended the sweep sends it again, later each time.
    try:
        disconnect.end_connections(core(), uuid, time.time())
    except StateUnavailable as error:
        _log_deferred(error, task_queue.DISCONNECT, uuid)


@task(task_queue.REPLACE, base=SessionTask)
def replace_workspace(uuid: str, access_epoch: int) -> None:
    # While the disconnect is due it is sent again.
    disconnect.replace_workspace(core(), uuid, access_epoch)


@task(task_queue.CHECK_POLICIES)
def check_policies() -> None:
    network_policies.check(core().heartbeats, os.environ)


@task(task_queue.TOKEN_ENDED)
def token_ended(uuid: str) -> None:
    # The gateway, which workspaces can reach, may not write to the queue of tasks that act on the cluster.
    core().tasks.send(task_queue.RENEW_TOKEN, uuid)


@task(task_queue.RENEW_TOKEN, base=SessionTask)
def renew_token(uuid: str) -> None:
    # A lost task is sent again with the next request that shows an ended token.
    token_renewal.renew(core(), context().runtime, uuid)


@task(task_queue.LOOK_AGAIN, base=SessionTask)
def look_again(uuid: str) -> None:
    # A lost task is sent again when the machine is refused again.
    context().runtime.look_again(uuid)


@task(task_queue.LEAD_PORTS, base=SessionTask)
def lead_ports(uuid: str) -> None:
    # Until the ingress leads to the ports the sweep sends it again.
    port_routes.lead(core(), context().runtime, uuid)


@task(task_queue.LOST, base=SessionTask)
def check_files(uuid: str) -> None:
    # A lost task is made up for by the reconcile sweep, or by the next wake.
    context().lifecycle.check_files(uuid)


@task(task_queue.ERASE, base=SessionTask)
def erase(uuid: str) -> None:
    context().erasing.erase(uuid)


@task(task_queue.BACKUP, base=SessionTask)
def backup(uuid: str) -> None:
    context().lifecycle.back_up(uuid)


@task(task_queue.POINT, base=SessionTask)
def restore_point(uuid: str) -> None:
    context().points.make(uuid)


@task(task_queue.DRILL, base=SessionTask)
def drill(uuid: str) -> None:
    context().drills.drill(uuid)


@task(task_queue.READ_BACKUP)
def read_backup(name: str, call: str) -> None:
    try:
        with _slot():
            rpc.read(core(), download_jobs(), name, call)
    except NoSlot as error:
        core().rpc.refuse(call, error)


@task(task_queue.DELETE_BACKUP)
def delete_backup(name: str, call: str) -> None:
    rpc.delete(core(), name, call)


@task(task_queue.CHECK_STORES)
def check_stores(name: str, call: str) -> None:
    rpc.check_stores(core(), call)


@task(task_queue.SWEEP_IDLE)
def sweep_idle() -> None:
    context().sweeps.idle()


@task(task_queue.SWEEP_EXPIRED)
def sweep_expired() -> None:
    context().sweeps.expired()


@task(task_queue.SWEEP_STALE)
def sweep_stale() -> None:
    context().sweeps.stale()


@task(task_queue.SWEEP_POINTS)
def sweep_points() -> None:
    context().points.sweep()


@task(task_queue.SWEEP_DRILLS)
def sweep_drills() -> None:
    context().drills.sweep()


@task(task_queue.RECONCILE)
def reconcile() -> None:
    context().sweeps.reconcile()


@task(task_queue.SWEEP_INDEX)
def sweep_index() -> None:
    context().sweeps.index()


@task(task_queue.SWEEP_RETENTION)
def sweep_retention() -> None:
    context().sweeps.retention()
