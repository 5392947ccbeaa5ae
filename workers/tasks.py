"""The Celery tasks: each takes ids and calls the lifecycle or a sweep."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
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

log = logging.getLogger(__name__)

SHORT = {"time_limit": settings.short_task_limit, "soft_time_limit": settings.short_task_limit * 0.9}
# Flower shows the tasks of sessions; three sweeps a second would hide them.
SWEEP = {**SHORT, "send_events": False}
LONG = {"time_limit": settings.long_task_limit, "soft_time_limit": settings.long_task_limit * 0.95}

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


@app.task(name=task_queue.PROVISION, base=SessionTask, **SHORT)
def provision(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@app.task(name=task_queue.WAKE, base=SessionTask, **SHORT)
def wake(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@app.task(name=task_queue.DELIVER, **SHORT)
def deliver(uuid: str) -> None:
    # Its attempts are not counted: many at once are normal. While prompts wait the sweep sends it again.
    try:
        core().delivery.deliver(uuid)
    except StateUnavailable as error:
        _log_deferred(error, task_queue.DELIVER, uuid)


@app.task(name=task_queue.WARN, **SHORT)
def warn(uuid: str) -> None:
    notices.warn_of_sleep(core(), uuid, time.time())


@app.task(name=task_queue.TELL_FILES, **SHORT)
def tell_files(uuid: str) -> None:
    notices.tell_files(core(), uuid)


@app.task(name=task_queue.LOCK_OUT, **SHORT)
def end_connections(uuid: str) -> None:
    # Never given up: until the connections are ended the sweep sends it again, later each time.
    try:
        disconnect.end_connections(core(), uuid, time.time())
    except StateUnavailable as error:
        _log_deferred(error, task_queue.LOCK_OUT, uuid)


@app.task(name=task_queue.REPLACE, base=SessionTask, **SHORT)
def replace_workspace(uuid: str, access_epoch: int) -> None:
    # While the disconnect is due it is sent again.
    disconnect.replace_workspace(core(), uuid, access_epoch)


@app.task(name=task_queue.CHECK_POLICIES, **SWEEP)
def check_policies() -> None:
    network_policies.check(core().heartbeats, os.environ)


@app.task(name=task_queue.TOKEN_ENDED, **SHORT)
def token_ended(uuid: str) -> None:
    # The gateway, which workspaces can reach, may not write to the queue of tasks that act on the cluster.
    core().tasks.send(task_queue.RENEW_TOKEN, uuid)


@app.task(name=task_queue.RENEW_TOKEN, base=SessionTask, **SHORT)
def renew_token(uuid: str) -> None:
    # A lost task is sent again with the next request that shows an ended token.
    token_renewal.renew(core(), context().runtime, uuid)


@app.task(name=task_queue.LOOK_AGAIN, base=SessionTask, **SHORT)
def look_again(uuid: str) -> None:
    # A lost task is sent again when the machine is refused again.
    context().runtime.look_again(uuid)


@app.task(name=task_queue.SLEEP, base=SessionTask, **SHORT)
def sleep(uuid: str, generation: int) -> None:
    with _slot():
        context().lifecycle.carry_out(uuid, generation)


@app.task(name=task_queue.LEAVE, base=SessionTask, **SHORT)
def begin_deletion(uuid: str, generation: int) -> None:
    with _slot():
        context().lifecycle.carry_out(uuid, generation)


@app.task(name=task_queue.LOST, base=SessionTask, **SHORT)
def check_files(uuid: str) -> None:
    # A lost task is made up for by the reconcile sweep, or by the next wake.
    context().lifecycle.check_files(uuid)


@app.task(name=task_queue.RESTORE, base=SessionTask, **LONG)
def restore(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@app.task(name=task_queue.ROLLBACK, base=SessionTask, **LONG)
def rollback(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@app.task(name=task_queue.TEARDOWN, base=SessionTask, **LONG)
def teardown(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@app.task(name=task_queue.ARCHIVE, base=SessionTask, **LONG)
def archive(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@app.task(name=task_queue.ERASE, base=SessionTask, **LONG)
def erase(uuid: str) -> None:
    context().erasing.erase(uuid)


@app.task(name=task_queue.BACKUP, base=SessionTask, **LONG)
def backup(uuid: str) -> None:
    context().lifecycle.back_up(uuid)


@app.task(name=task_queue.POINT, base=SessionTask, **LONG)
def restore_point(uuid: str) -> None:
    context().points.make(uuid)


@app.task(name=task_queue.DRILL, base=SessionTask, **LONG)
def drill(uuid: str) -> None:
    context().drills.drill(uuid)


@app.task(name=task_queue.READ_BACKUP, **SHORT)
def read_backup(name: str, call: str) -> None:
    try:
        with _slot():
            rpc.read(core(), download_jobs(), name, call)
    except NoSlot as error:
        core().rpc.refuse(call, error)


@app.task(name=task_queue.DELETE_BACKUP, **SHORT)
def delete_backup(name: str, call: str) -> None:
    rpc.delete(core(), name, call)


@app.task(name=task_queue.CHECK_STORES, **SHORT)
def check_stores(name: str, call: str) -> None:
    rpc.check_stores(core(), call)


@app.task(name=task_queue.SWEEP_IDLE, **SWEEP)
def sweep_idle() -> None:
    context().sweeps.idle()


@app.task(name=task_queue.SWEEP_EXPIRED, **SWEEP)
def sweep_expired() -> None:
    context().sweeps.expired()


@app.task(name=task_queue.SWEEP_STALE, **SWEEP)
def sweep_stale() -> None:
    context().sweeps.stale()


@app.task(name=task_queue.SWEEP_POINTS, **SWEEP)
def sweep_points() -> None:
    context().points.sweep()


@app.task(name=task_queue.SWEEP_DRILLS, **SWEEP)
def sweep_drills() -> None:
    context().drills.sweep()


@app.task(name=task_queue.RECONCILE, **SWEEP)
def reconcile() -> None:
    context().sweeps.reconcile()


@app.task(name=task_queue.SWEEP_INDEX, **{**LONG, "send_events": False})
def sweep_index() -> None:
    context().sweeps.index()


@app.task(name=task_queue.SWEEP_RETENTION, **LONG)
def sweep_retention() -> None:
    context().sweeps.retention()
