"""The one way to `active`: a session whose workspace answers and whose start is complete.

A start does more than start processes. If a session became active before the rest was done, nothing would repeat what a
killed worker left undone: the workspace could not be reached, or its agent would accept no prompts. So the second of
the two marks it active: the observer that sees the workspace ready, or the worker at the end of the start. What both
missed is found by the stale sweep.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from app.core.composition import Core
from app.core.errors import IllegalState, RetryableError, SessionNotFound, Superseded
from app.core.redis import keys
from app.core.restore_points.schedule import next_point
from app.core.sessions.change import Intervals
from app.core.sessions.idle_policy import idle_verdict
from app.core.sessions.model import Record, Status, phases_since
from workers.lifecycle.action_counters import STARTED
from workers.lifecycle.ended import STARTING, action_of, done
from workers.lifecycle.notify import notify
from workers.runtime.base import Observation, Runtime

log = logging.getLogger(__name__)


def mark_active(core: Core, record: Record, seen: Observation, now: float) -> bool:
    """Mark a session active whose workspace was `seen` ready for the record's intent; while its start is not complete,
    only note in the record that it was seen (`ready_seen`). False where a newer intent is, which is left alone."""
    if not _is_ready(record, seen):
        return False
    try:
        if not _note_seen(core, record, now):
            _mark(core, record, seen, now)
    except (Superseded, IllegalState, SessionNotFound) as error:
        log.info("not marked active: %s", error, extra={"uuid": record.uuid})
        return False
    return True


def look_again(core: Core, runtime: Runtime, record: Record, now: float) -> bool:
    """Mark a session active whose start is complete and whose workspace was seen ready before, if it still is; whether
    it is. When it cannot be observed now, the stale sweep looks again."""
    if record.ready_seen != record.generation:
        return False
    try:
        seen = runtime.observe(record.uuid)
    except RetryableError as error:
        log.info("the workspace cannot be observed: %s", error, extra={"uuid": record.uuid})
        return False
    if seen is None or not _is_ready(record, seen):
        return False
    mark_active(core, record, seen, now)
    return True


def _is_ready(record: Record, seen: Observation) -> bool:
    """Whether the workspace is ready for the record's intent."""
    return seen.ready and seen.generation == record.generation


def _note_seen(core: Core, record: Record, now: float) -> bool:
    """Note that the workspace is ready, unless its start is complete; whether it was noted."""
    if record.status not in STARTING or record.started_at:
        return False
    incomplete = {"generation": record.generation, "started_at": 0.0}
    try:
        core.store.change(record.uuid, now, expect=incomplete, ready_seen=record.generation)
    except Superseded:
        return False  # The start is complete by now; a newer intent is noticed by the next change.
    return True


def _mark(core: Core, record: Record, seen: Observation, now: float) -> None:
    phases = phases_since(record.phases, {"ready": now, **seen.phases}, record.requested_at)
    up = replace(record, status=Status.ACTIVE, awake_since=now, last_activity=now, warned=0.0)
    core.store.change(
        record.uuid,
        now,
        to=Status.ACTIVE,
        expect={"generation": record.generation},
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
        ledger=Intervals(runs_from=_ran_from(record, seen.began, now)),
    )
    if core.makes_restore_points:
        core.store.look_earlier(keys.POINTS_DUE, record.uuid, next_point(up, core.settings, now).at)
    if record.status in STARTING:
        notify(core, done(action_of(record), record, now, phases=phases))
    else:
        # One that had failed answers again: no action ended.
        core.counters.count(STARTED)


def _ran_from(record: Record, began: float, now: float) -> float:
    """Since when the processes of a workspace that is ready cost (s since the epoch), 0 if the record has it right.
    `began` is when the editor's newest process began, 0 if unknown: those that ran before the request cost longer."""
    since = record.compute_since
    if not since:
        return max(began or now, record.compute_until)
    ran_before = since < record.requested_at and since < began
    return 0.0 if ran_before else began
