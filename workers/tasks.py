"""The tasks: each takes ids, and calls the lifecycle or a sweep.

A task counts its deliveries until it ends by itself. One that keeps dying with its worker, or keeps
failing, is put aside as a dead letter after `MAX_DELIVERIES`, and its session says so.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import Task

from app.sessions import queue
from app.sessions.errors import RetryableError, RuntimeUnavailable, SessionError, StateUnavailable
from workers import answering, lockout, warning
from workers.celery_app import app, settings
from workers.context import context, core, deliveries, readers

log = logging.getLogger(__name__)

SHORT = {"time_limit": settings.short_task_limit, "soft_time_limit": settings.short_task_limit * 0.9}
# Flower shows what was done for sessions; three sweeps a second would bury it.
SWEEP = {**SHORT, "send_events": False}
AWAY = (StateUnavailable, RuntimeUnavailable)
LONG = {"time_limit": settings.long_task_limit, "soft_time_limit": settings.long_task_limit * 0.95}


class SessionTask(Task):
    """Retries what is retryable with back-off and jitter, and gives up loudly.

    Redis or the runtime being away is no failure of the task: its intent is recorded, and the stale sweep enqueues
    it again until they are back, however long that takes.
    """

    autoretry_for = (RetryableError,)
    dont_autoretry_for = (RuntimeUnavailable,)
    retry_backoff = 1
    retry_backoff_max = 30
    retry_jitter = True
    max_retries = settings.max_deliveries - 1

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        try:
            self._deliver(args, kwargs)
        except AWAY as error:
            log.warning("left to the stale sweep: %s", error, extra={"task": self.name, "task_args": list(args)})

    def _deliver(self, args: Any, kwargs: Any) -> None:
        fleet = core().fleet
        delivery = fleet.delivered(self._letter_id(args))
        if delivery > settings.max_deliveries:
            self._give_up(args, f"it was delivered {delivery - 1} times and its worker died each time")
            return
        try:
            super().__call__(*args, **kwargs)
        except AWAY:
            fleet.done(self._letter_id(args))
            raise
        fleet.done(self._letter_id(args))

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self._give_up(args, str(exc) if isinstance(exc, SessionError) else f"an internal error, {type(exc).__name__}")

    def _letter_id(self, args: Any) -> str:
        """The same for every message of one intent, so that enqueuing it again doesn't start the count anew."""
        return ":".join([self.name, *map(str, args)])

    def _give_up(self, args: Any, why: str) -> None:
        fleet, lifecycle = core().fleet, context().lifecycle
        log.error("task given up: %s", why, extra={"task": self.name, "task_args": list(args)})
        fleet.bury({"task": self.name, "args": list(args), "why": why, "at": time.time()})
        fleet.done(self._letter_id(args))
        if self.name == queue.BACKUP:
            lifecycle.drop_backup(args[0], why)
        else:
            uuid, generation = args
            lifecycle.fail(uuid, generation, f"The {self.name.split('.')[-1]} task was given up: {why}")


@app.task(name=queue.PROVISION, base=SessionTask, **SHORT)
def provision(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@app.task(name=queue.WAKE, base=SessionTask, **SHORT)
def wake(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@app.task(name=queue.DELIVER, **SHORT)
def deliver(uuid: str) -> None:
    # Not counted as others are: many of them at once are no sign of trouble. While prompts wait the sweep asks again.
    try:
        deliveries().deliver(uuid)
    except StateUnavailable as error:
        log.warning("left to the stale sweep: %s", error, extra={"task": queue.DELIVER, "task_args": [uuid]})


@app.task(name=queue.WARN, **SHORT)
def warn(uuid: str) -> None:
    warning.warn(core(), uuid, time.time())


@app.task(name=queue.LOCK_OUT, **SHORT)
def lock_out(uuid: str) -> None:
    # Never put aside: while it is owed the sweep asks again, later each time.
    try:
        lockout.lock_out(core(), uuid, time.time())
    except StateUnavailable as error:
        log.warning("left to the stale sweep: %s", error, extra={"task": queue.LOCK_OUT, "task_args": [uuid]})


@app.task(name=queue.SLEEP, base=SessionTask, **SHORT)
def sleep(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@app.task(name=queue.RESTORE, base=SessionTask, **LONG)
def restore(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@app.task(name=queue.TEARDOWN, base=SessionTask, **LONG)
def teardown(uuid: str, generation: int) -> None:
    context().lifecycle.carry_out(uuid, generation)


@app.task(name=queue.BACKUP, base=SessionTask, **LONG)
def backup(uuid: str) -> None:
    context().lifecycle.back_up(uuid)


@app.task(name=queue.READ_BACKUP, **SHORT)
def read_backup(name: str, ticket: str) -> None:
    answering.read(core(), readers(), name, ticket)


@app.task(name=queue.DELETE_BACKUP, **SHORT)
def delete_backup(name: str, ticket: str) -> None:
    answering.delete(core(), name, ticket)


@app.task(name=queue.SWEEP_IDLE, **SWEEP)
def sweep_idle() -> None:
    context().sweeps.idle()


@app.task(name=queue.SWEEP_EXPIRED, **SWEEP)
def sweep_expired() -> None:
    context().sweeps.expired()


@app.task(name=queue.SWEEP_STALE, **SWEEP)
def sweep_stale() -> None:
    context().sweeps.stale()


@app.task(name=queue.RECONCILE, **SWEEP)
def reconcile() -> None:
    context().sweeps.reconcile()


@app.task(name=queue.SWEEP_INDEX, **{**LONG, "send_events": False})
def sweep_index() -> None:
    context().sweeps.index()


@app.task(name=queue.SWEEP_RETENTION, **LONG)
def sweep_retention() -> None:
    context().sweeps.retention()
