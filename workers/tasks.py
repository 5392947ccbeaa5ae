"""The tasks: each takes ids, and calls the lifecycle or a sweep."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

from celery import Task

from app.sessions import queue
from app.sessions.errors import RetryableError, StateUnavailable
from workers import answering, isolation, lockout, tokens, warning
from workers.celery_app import app, settings
from workers.context import context, core, deliveries, readers

log = logging.getLogger(__name__)

SHORT = {"time_limit": settings.short_task_limit, "soft_time_limit": settings.short_task_limit * 0.9}
# Flower shows what was done for sessions; three sweeps a second would bury it.
SWEEP = {**SHORT, "send_events": False}
LONG = {"time_limit": settings.long_task_limit, "soft_time_limit": settings.long_task_limit * 0.95}


PLACES = 32
"""Tasks of a process that wait for workspaces at a time. Its threads beyond that are for sweeps: the `sweeper` of the
Procfile has 8 more."""

_places = BoundedSemaphore(PLACES)


class NoPlace(RetryableError):
    """As many tasks wait for workspaces as may."""

    def __init__(self) -> None:
        super().__init__("Too many workspaces are stopping at the moment; try again.")


@contextmanager
def _place() -> Iterator[None]:
    """One of the `PLACES`; raises `NoPlace` at once when none is free."""
    if not _places.acquire(blocking=False):
        raise NoPlace
    try:
        yield
    finally:
        _places.release()


class SessionTask(Task):
    """What may go right later was put off (workers/lifecycle.py): the stale sweep comes back to it.

    So it is with Redis or the runtime away: the intent is recorded, and is enqueued again until they are back, however
    long that takes.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__call__(*args, **kwargs)
        except (StateUnavailable, RetryableError) as error:
            log.warning("left to the stale sweep: %s", error, extra={"task": self.name, "task_args": list(args)})


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


@app.task(name=queue.CHECK_POLICIES, **SWEEP)
def check_policies() -> None:
    isolation.check(core().fleet, os.environ)


@app.task(name=queue.TOKEN_ENDED, **SHORT)
def token_ended(uuid: str) -> None:
    # The gateway, which workspaces reach, puts nothing into the queue of those who act on the cluster.
    core().tasks.send(queue.RENEW_TOKEN, uuid)


@app.task(name=queue.RENEW_TOKEN, base=SessionTask, **SHORT)
def renew_token(uuid: str) -> None:
    # One that is lost comes again with the next call that shows an ended token.
    tokens.renew(core(), context().runtime, uuid)


@app.task(name=queue.SLEEP, base=SessionTask, **SHORT)
def sleep(uuid: str, generation: int) -> None:
    with _place():
        context().lifecycle.carry_out(uuid, generation)


@app.task(name=queue.LEAVE, base=SessionTask, **SHORT)
def leave(uuid: str, generation: int) -> None:
    with _place():
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
    try:
        with _place():
            answering.read(core(), readers(), name, ticket)
    except NoPlace as error:
        core().tickets.refuse(ticket, error)


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
