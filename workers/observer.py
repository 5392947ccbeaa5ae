"""The observer: keeps the records in agreement with what the runtime observes. One leads, the others stand by.

A session becomes `active` as soon as its editor is seen to answer (workers/lifecycle/mark_active.py); one whose
workspace died is `failed`, with the last lines of its log.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from prometheus_client import CollectorRegistry

from app.core.composition import Core
from app.core.errors import (
    FilesGoing,
    FilesGone,
    IllegalState,
    InvalidRequest,
    RetryableError,
    SessionError,
    SessionNotFound,
    StateUnavailable,
    Superseded,
)
from app.core.redis import keys, task_queue
from app.core.redis.processes import report_process
from app.core.sessions.change import Intervals
from app.core.sessions.idle_policy import idle_verdict
from app.core.sessions.model import UP, Record, Status, phases_since
from app.process import logs, threads
from app.process.settings import Settings
from workers import runtime as runtimes
from workers import worker_metrics
from workers.heartbeat_file import Heartbeat
from workers.lifecycle.ended import STARTING, done, session_failed
from workers.lifecycle.lost_files import out_of_reach
from workers.lifecycle.mark_active import mark_active
from workers.lifecycle.notify import notify
from workers.runtime.base import Observation, Runtime, Snapshot
from workers.worker_metrics import ObserverMetrics

log = logging.getLogger(__name__)

BEAT = 1.0
"""s between heartbeats, and between two attempts to lead or to watch."""

HUNG = 10.0
"""s without a heartbeat of the loop after which the observer no longer reports as alive."""


class Observer:
    """Applies what a runtime observes to the records. Times are seconds since the epoch."""

    def __init__(
        self,
        core: Core,
        runtime: Runtime,
        clock: Callable[[], float] = time.time,
        heartbeat: Heartbeat | None = None,
        figures: ObserverMetrics | None = None,
    ) -> None:
        self._figures = figures or ObserverMetrics(CollectorRegistry())
        self._heart = heartbeat or Heartbeat("")
        self._core = core
        self._store = core.store
        self._runtime = runtime
        self._clock = clock

    def run(self, stop: Event) -> None:
        """Lead when no other observer does, and watch until `stop`; after an error, try again after `BEAT`."""
        while not stop.is_set():
            self._heart.beat()
            try:
                with self._core.leases.hold(keys.OBSERVER_LEADER) as leading:
                    if leading:
                        log.info("leading")
                        self._figures.leads()
                        self._watch(stop)
            except (StateUnavailable, RetryableError) as error:
                log.warning("the watch was interrupted: %s", error)
            else:
                self._figures.stands_by()
            stop.wait(BEAT)

    def apply(self, seen: Snapshot | Observation) -> None:
        """Make the records agree with what was observed."""
        if isinstance(seen, Observation):
            self._apply_one(seen)
            return
        self._figures.seen("snapshot")
        present = {workspace.identity.uuid for workspace in seen.workspaces}
        for record in self._store.metered():
            if record.uuid not in present:
                self._note_end(record, 0.0)
        for record in self._store.find(self._store.uuids(UP)):
            if record.uuid not in present:
                try:
                    self._apply_down(record, record.generation, wished=not seen.unwished)
                except (Superseded, IllegalState, SessionNotFound) as error:
                    log.info("snapshot ignored: %s", error, extra={"uuid": record.uuid})
        for workspace in seen.workspaces:
            self._apply_one(workspace)

    def _watch(self, stop: Event) -> None:
        with self._heartbeat():
            complete = False

            def turn() -> None:
                # Between two observations nothing that was reported is left to apply.
                self._heart.beat()
                if complete:
                    self._figures.up_to_date()

            def look_again(uuid: str) -> None:
                # The observer changes nothing where the workspaces run. A lost task is made up for by the next refusal.
                self._core.tasks.send(task_queue.LOOK_AGAIN, uuid)

            for seen in self._runtime.watch(stop, turn, look_again):
                self.apply(seen)
                complete = True

    def _apply_one(self, seen: Observation) -> None:
        self._heart.beat()
        try:
            record = self._store.get(seen.identity.uuid)
            self._figures.seen(kind_of(seen))
            if seen.code in (FilesGone.code, FilesGoing.code):
                self._core.tasks.send(task_queue.LOST, record.uuid)
            elif seen.failure:
                self._apply_failure(record, seen)
            elif seen.ready:
                self._note_begin(record, seen)
                if self._apply_ready(record, seen):
                    self._apply_agent(record, seen)
            elif seen.running:
                self._note_begin(record, seen)
                self._apply_progress(record, seen)
            else:
                self._note_end(record, seen.ended)
                self._apply_down(record, seen.generation, wished=not seen.deleted)
        except (Superseded, IllegalState, SessionNotFound, InvalidRequest) as error:
            log.info("observation ignored: %s", error, extra={"uuid": seen.identity.uuid})

    def _apply_progress(self, record: Record, seen: Observation) -> None:
        """Note the phases of a start, and what it waits for. An active session whose workspace waits for something has
        lost its pod: it is waking again."""
        if record.generation != seen.generation:
            return
        if record.status is Status.ACTIVE and seen.waiting:
            self._end(record, self._clock())
            self._bring_back(record, "its pod is gone, and the new one waits")
        elif record.status in STARTING:
            self._note_phases(record, seen)
            self._note_waiting(record, seen)

    def _note_phases(self, record: Record, seen: Observation) -> None:
        phases = phases_since(record.phases, seen.phases, record.requested_at)
        if new := [name for name in phases if name not in record.phases]:
            self._store.change(
                record.uuid,
                self._clock(),
                expect={"generation": seen.generation, "status": record.status},
                phases={name: phases[name] for name in new},
                event=("phase", {"phase": new[-1], "ms": phases[new[-1]]}),
            )

    def _note_waiting(self, record: Record, seen: Observation) -> None:
        never_ran = bool(seen.waiting and not seen.began and record.compute_since)
        if never_ran or (record.reason, record.reason_code) != (seen.waiting, seen.code):
            # The scheduler's message changes with every node that comes or goes: that alone is no event.
            news = (record.reason == "", record.reason_code) != (seen.waiting == "", seen.code)
            why = {"reason": seen.waiting or None, "reason_code": seen.code or None}
            self._store.change(
                record.uuid,
                self._clock(),
                expect={"generation": seen.generation, "status": record.status},
                reason=seen.waiting,
                reason_code=seen.code,
                ledger=Intervals(never_ran=never_ran),
                event=("state", {"status": record.status, **why}) if news else None,
            )

    def _apply_failure(self, record: Record, seen: Observation) -> None:
        if record.status not in UP or record.generation != seen.generation:
            return
        if seen.waiting and not self._still_waits(seen):
            log.warning("a direct look contradicts the watch", extra={"uuid": record.uuid})
            return
        now = self._clock()
        lasts = record.started_at and now - record.started_at < self._core.settings.volume_lost_after
        if seen.waiting and lasts and out_of_reach(record):
            return  # the stale sweep replaces the volume
        self._store.change(
            record.uuid,
            now,
            to=Status.FAILED,
            expect={"generation": seen.generation},
            settle=True,
            reason=seen.failure,
            reason_code=seen.code,
            replicas=0,
            pod_name="",
            ledger=_ended_by(seen, now),
        )
        notify(self._core, session_failed(record, seen.failure, now, seen.code))

    def _apply_ready(self, record: Record, seen: Observation) -> bool:
        """Mark the session active if it was started for its newest intent; else that is left to the worker of that.
        False where its processes are not those that it is to run with."""
        if record.generation != seen.generation:
            return False
        if record.status is Status.ACTIVE:
            self._refresh(record, seen)
            return True
        if record.status is Status.SLEEPING:
            self._adopt(record)
            return False
        return mark_active(self._core, record, seen, self._clock())

    def _refresh(self, record: Record, seen: Observation) -> None:
        """Note the pod of an active session. That its agent does not run is a reason, but no failure: the editor
        works."""
        if (record.replicas, record.pod_name, record.reason) != (1, seen.pod_name, seen.trouble):
            self._store.change(
                record.uuid,
                self._clock(),
                expect={"generation": seen.generation},
                replicas=1,
                pod_name=seen.pod_name,
                reason=seen.trouble,
            )

    def _adopt(self, record: Record) -> None:
        """Wake a sleeping session that something else scaled up: the wake adopts its processes."""
        if record.settled >= record.generation:
            log.info("scaled up by something else", extra={"uuid": record.uuid})
            self._core.sessions.wake(record.uuid)

    def _apply_agent(self, record: Record, seen: Observation) -> None:
        """Note the agent's address, which the runtime knows too: normally the agent has reported it before, unless that
        call was lost."""
        if seen.agent and self._core.inbox.agent(record.uuid) is None:
            self._core.inbox.agent_here(record.uuid, seen.agent, seen.pod_name, "", self._clock())
        if record.waiting:
            self._core.delivery.request(record.uuid, record.request_id)

    def _apply_down(self, record: Record, generation: int, *, wished: bool) -> None:
        """The processes of a session that should be up are gone. A start is repeated once its worker is done with it.
        An active session sleeps if somebody may have asked for that and it has nothing left to do; else it is woken,
        unless it is due to sleep anyway."""
        if record.generation != generation or record.status not in UP:
            return
        if record.status is not Status.ACTIVE:
            if record.started_at and not self._runs(record):
                expect = {"generation": generation, "status": record.status, "started_at": record.started_at}
                # Whoever still holds the lease sends it too, as its start is not complete.
                incomplete = self._store.change(record.uuid, self._clock(), expect=expect, started_at=0.0).record
                self._core.sessions.resend(incomplete)
            return
        now = self._clock()
        busy = record.waiting or record.unfinished
        if busy or not (wished or idle_verdict(record, self._core.policy, now).due):
            self._bring_back(record, "its processes are gone, so they are started again")
            return
        self._store.change(
            record.uuid,
            now,
            to=Status.SLEEPING,
            expect={"generation": generation, "status": record.status},
            settle=True,
            replicas=0,
            pod_name="",
            next_epoch=True,
        )
        # It was scaled down by something else, so there was no request.
        notify(self._core, done("sleep", record, now, since=0.0))
        self._core.tasks.send(task_queue.RENEW_TOKEN, record.uuid, request_id=record.request_id)

    def _bring_back(self, record: Record, why: str) -> None:
        log.warning("%s", why, extra={"uuid": record.uuid})
        self._core.sessions.restart(record)
        self._core.audit.note_own("bring_back", record.uuid, record.user_id, why, repeatable=True)

    def _note_begin(self, record: Record, seen: Observation) -> None:
        """The processes cost from their beginning, also those that no worker started.
        What began before the last known end is an old observation."""
        unknown = not record.compute_since and not record.stopping and seen.began > record.compute_until
        if unknown and record.status is not Status.TERMINATED:
            expect = {"compute_since": 0.0, "compute_until": record.compute_until, "stopping": False}
            with suppress(Superseded):  # somebody else has noted it
                self._store.change(record.uuid, self._clock(), expect=expect, ledger=Intervals(runs_from=seen.began))

    def _note_end(self, record: Record, ended: float) -> None:
        """The processes are gone, and cost until `ended`, as far as that is known. A worker that starts or stops them
        notes that itself."""
        begins = record.status in STARTING and not record.started_at
        stops = record.stopping and record.settled < record.generation
        if not record.compute_since or stops or begins:
            return
        # The observation may be older than the record.
        seen = self._runtime.observe(record.uuid)
        if seen is None or not seen.running:
            self._end(record, ended or self._clock())

    def _end(self, record: Record, ended: float) -> None:
        expect = {"compute_since": record.compute_since, "stopping": record.stopping}
        with suppress(Superseded, SessionNotFound):
            self._store.change(record.uuid, self._clock(), expect=expect, ledger=Intervals(ran_until=ended))

    def _still_waits(self, reported: Observation) -> bool:
        """Whether a direct look confirms that a start waits: the watch may have missed changes."""
        seen = self._runtime.observe(reported.identity.uuid)
        if seen is None or seen.generation != reported.generation:
            return True
        return not seen.ready and not seen.began and seen.code == reported.code

    def _runs(self, record: Record) -> bool:
        """Whether its processes run after all for the newest intent: the observation is a moment old."""
        seen = self._runtime.observe(record.uuid)
        return seen is not None and seen.running and seen.generation == record.generation

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Report this observer as alive while the block runs, its loop turns, and the runtime answers; a hung observer
        would otherwise look like a quiet one. Errors of the runtime or Redis do not end the block. This also trims
        Redis's memory reserve: no task can, as a full Redis accepts none."""
        done = Event()

        def beat() -> None:
            while not done.is_set():
                try:
                    self._core.memory.adjust_ballast()
                    self._core.feed.shrink_when_full()
                    self._runtime.ping()
                    if self._heart.age < HUNG:
                        self._core.heartbeats.observer_alive(self._clock())
                except SessionError as error:
                    log.warning("the heartbeat was not sent: %s", error)
                done.wait(BEAT)

        thread = Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(BEAT)


def kind_of(seen: Observation) -> str:
    """What was observed, in the metrics."""
    if seen.failure:
        return "failed"
    return "ready" if seen.ready else "progress" if seen.running else "down"


def _ended_by(failure: Observation, now: float) -> Intervals | None:
    """What a failure ends: processes, unless the start waited in vain, or only the files are going."""
    if failure.failure == str(FilesGoing()):
        return None
    if failure.waiting and not failure.began:
        return Intervals(never_ran=True)
    return Intervals(ran_until=failure.ended or now)


def main() -> None:
    """Watch until SIGTERM or SIGINT."""
    settings = Settings.from_env()
    logs.configure(settings.log_level)
    threads.end_process_when_one_dies()
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    figures = ObserverMetrics(worker_metrics.registry())
    worker_metrics.serve(settings)
    core, heartbeat = Core(settings), Heartbeat(settings.heartbeat_file)
    reports = report_process("observer", settings, lambda: heartbeat.age < HUNG)
    try:
        Observer(core, runtimes.load(settings), heartbeat=heartbeat, figures=figures).run(stop)
    finally:
        reports.stop()


if __name__ == "__main__":
    main()
