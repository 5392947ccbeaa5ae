"""A session becomes active when its workspace answers and its start has come to its end.

A start does more than to bring processes up. If a session were active without the rest of it, nobody would begin again
what a worker left undone that was killed: it could not be reached, or its agent would take nothing. So whoever comes
second calls it active: the watcher, or the worker at the end of the start.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from app.sessions import queue
from app.sessions.core import Core
from app.sessions.errors import IllegalState, RetryableError, SessionNotFound, Superseded
from app.sessions.model import Record, Status, phases_since
from app.sessions.verdict import idle_verdict
from workers.runtime.base import Observation, Runtime

log = logging.getLogger(__name__)

STARTING = frozenset({Status.CREATED, Status.WAKING})

START_KINDS = {queue.PROVISION: "create", queue.RESTORE: "restore", queue.WAKE: "wake"}
"""What a start is called in the metrics, by the task that carries it out."""


def answered(core: Core, record: Record, seen: Observation, now: float) -> None:
    """The workspace was seen ready for the record's intent: call its session active, or note that it answered where its
    start still goes on. Raises `Superseded`, `IllegalState`, `SessionNotFound`."""
    if record.status in STARTING and not record.started_at:
        goes_on = {"generation": seen.generation, "started_at": 0.0}
        try:
            core.store.change(record.uuid, now, expect=goes_on, answered=seen.generation)
        except Superseded:
            pass  # It came to its end at this moment; where the intent is a newer one, that is said below.
        else:
            return
    _arrive(core, record, seen, now)


def catch_up(core: Core, runtime: Runtime, record: Record, now: float) -> bool:
    """Call a session active that answered before its start had come to its end, if it still does: whether it does.
    Where that can't be seen now, the stale sweep looks again."""
    if record.answered != record.generation:
        return False
    try:
        seen = runtime.observe(record.uuid)
    except RetryableError as error:
        log.info("not seen whether it answers: %s", error, extra={"uuid": record.uuid})
        return False
    if seen is None or not seen.ready or seen.generation != record.generation:
        return False
    arrived(core, record, seen, now)
    return True


def arrived(core: Core, record: Record, seen: Observation, now: float) -> None:
    """Call a session active whose start has come to its end and whose workspace is seen ready, unless something else
    was asked of it meanwhile."""
    try:
        _arrive(core, record, seen, now)
    except (Superseded, IllegalState, SessionNotFound) as error:
        log.info("not called active: %s", error, extra={"uuid": record.uuid})


def _arrive(core: Core, record: Record, seen: Observation, now: float) -> None:
    phases = phases_since(record.phases, {"ready": now, **seen.phases}, record.requested_at)
    up = replace(record, status=Status.ACTIVE, awake_since=now, last_activity=now, warned=0.0)
    core.store.change(
        record.uuid,
        now,
        to=Status.ACTIVE,
        expect={"generation": seen.generation},
        settle=True,
        idle_at=idle_verdict(up, core.policy, now).next_check,
        awake_since=up.awake_since,
        last_activity=up.last_activity,
        warned=up.warned,
        phases=phases,
        reason=seen.trouble,
        reason_code="",
        replicas=1,
        pod_name=seen.pod_name,
    )
    core.fleet.count("starts")
    if record.status in STARTING:
        core.fleet.started(START_KINDS.get(record.task, "wake"), phases)
