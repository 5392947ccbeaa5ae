"""The watcher: keeps the records true to what the runtime sees. One leads, the others stand by.

It calls a session `active` within one look of the editor answering (workers/arrival.py); a workspace that died is
`failed` with the last lines of its log.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from app import logs, threads
from app.sessions import keys, queue
from app.sessions.core import Core, build_core
from app.sessions.errors import (
    IllegalState,
    InvalidRequest,
    RetryableError,
    SessionError,
    SessionNotFound,
    StateUnavailable,
    Superseded,
)
from app.sessions.model import UP, Record, Status, phases_since
from app.sessions.verdict import idle_verdict
from app.settings import Settings
from workers import arrival
from workers import runtime as runtimes
from workers.heartbeat import Heartbeat
from workers.runtime.base import Observation, Runtime, Snapshot

log = logging.getLogger(__name__)

BEAT = 1.0
"""s between heartbeats, and between two tries to lead or to see."""


HUNG = 10.0
"""s without a heartbeat of the loop after which the watcher no longer counts as one that sees."""


class Watcher:
    """Applies what a runtime sees to the records. Times are seconds since the epoch."""

    def __init__(
        self,
        core: Core,
        runtime: Runtime,
        clock: Callable[[], float] = time.time,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self._heart = heartbeat or Heartbeat("")
        self._core = core
        self._store = core.store
        self._runtime = runtime
        self._clock = clock

    def run(self, stop: Event) -> None:
        """Lead when nobody does, and watch until `stop`; whatever breaks is tried again after a beat."""
        while not stop.is_set():
            self._heart.beat()
            try:
                with self._core.leases.hold(keys.WATCHER_LEADER) as leading:
                    if leading:
                        log.info("leading")
                        self._watch(stop)
            except (StateUnavailable, RetryableError) as error:
                log.warning("watching interrupted: %s", error)
            stop.wait(BEAT)

    def apply(self, seen: Snapshot | Observation) -> None:
        """Make the records agree with what was seen."""
        if isinstance(seen, Observation):
            self._apply_one(seen)
            return
        present = {workspace.identity.uuid for workspace in seen.workspaces}
        for record in self._store.find(self._store.uuids(UP)):
            if record.uuid not in present:
                try:
                    self._apply_down(record, record.generation, wished=not seen.unwished)
                except (Superseded, IllegalState, SessionNotFound) as error:
                    log.info("snapshot left aside: %s", error, extra={"uuid": record.uuid})
        for workspace in seen.workspaces:
            self._apply_one(workspace)

    def _watch(self, stop: Event) -> None:
        with self._heartbeat():
            for seen in self._runtime.watch(stop, self._heart.beat):
                self.apply(seen)

    def _apply_one(self, seen: Observation) -> None:
        self._heart.beat()
        try:
            record = self._store.get(seen.identity.uuid)
            if seen.failure:
                self._apply_failure(record, seen)
            elif seen.ready:
                self._apply_ready(record, seen)
                self._apply_agent(record, seen)
            elif seen.running:
                self._apply_progress(record, seen)
            else:
                self._apply_down(record, seen.generation, wished=not seen.deleted)
        except (Superseded, IllegalState, SessionNotFound, InvalidRequest) as error:
            log.info("observation left aside: %s", error, extra={"uuid": seen.identity.uuid})

    def _apply_progress(self, record: Record, seen: Observation) -> None:
        """Tell how far a start has come, and what it waits for. An active session whose workspace waits for something
        has lost what ran it: it is waking."""
        if record.generation != seen.generation:
            return
        if record.status is Status.ACTIVE and seen.waiting:
            self._bring_back(record, "what ran it is gone, its successor waits")
            return
        if record.status not in arrival.STARTING:
            return
        expect = {"generation": seen.generation, "status": record.status}
        phases = phases_since(record.phases, seen.phases, record.requested_at)
        if new := [name for name in phases if name not in record.phases]:
            self._store.change(
                record.uuid,
                self._clock(),
                expect=expect,
                phases={name: phases[name] for name in new},
                event=("phase", {"phase": new[-1], "ms": phases[new[-1]]}),
            )
        if (record.reason, record.reason_code) != (seen.waiting, seen.code):
            # The scheduler words the same thing otherwise with every node that comes or goes.
            news = (record.reason == "", record.reason_code) != (seen.waiting == "", seen.code)
            why = {"reason": seen.waiting or None, "reason_code": seen.code or None}
            self._store.change(
                record.uuid,
                self._clock(),
                expect=expect,
                reason=seen.waiting,
                reason_code=seen.code,
                event=("state", {"status": record.status, **why}) if news else None,
            )

    def _apply_failure(self, record: Record, seen: Observation) -> None:
        if record.status in UP and record.generation == seen.generation:
            if seen.waiting and not self._still_waits(seen):
                log.warning("seen otherwise than the feed shows it", extra={"uuid": record.uuid})
                return
            self._store.change(
                record.uuid,
                self._clock(),
                to=Status.FAILED,
                expect={"generation": seen.generation},
                settle=True,
                reason=seen.failure,
                reason_code=seen.code,
                replicas=0,
                pod_name="",
            )
            self._core.fleet.count("sessions_failed")

    def _apply_ready(self, record: Record, seen: Observation) -> None:
        """Call the session active if it was started for its newest intent, else leave that to the worker at it.
        One that someone else scaled up after it had been put to sleep is woken, which adopts it. An agent that doesn't
        run is told, and fails nothing: the editor works."""
        if record.generation != seen.generation:
            return
        if record.status is Status.ACTIVE:
            if (record.replicas, record.pod_name, record.reason) != (1, seen.pod_name, seen.trouble):
                self._store.change(
                    record.uuid,
                    self._clock(),
                    expect={"generation": seen.generation},
                    replicas=1,
                    pod_name=seen.pod_name,
                    reason=seen.trouble,
                )
            return
        if record.status is Status.SLEEPING:
            if record.settled >= record.generation:
                log.info("scaled up by someone else", extra={"uuid": record.uuid})
                self._core.sessions.wake(record.uuid)
            return
        arrival.answered(self._core, record, seen, self._clock())

    def _apply_agent(self, record: Record, seen: Observation) -> None:
        """An agent calls by itself, and sooner than this. Of one whose call was lost the runtime knows the address."""
        if record.generation != seen.generation or record.status not in UP:
            return
        if seen.agent and self._core.inbox.agent(record.uuid) is None:
            self._core.inbox.agent_here(record.uuid, seen.agent, seen.pod_name, "", self._clock())
        if record.waiting:
            self._core.tasks.send(queue.DELIVER, record.uuid, request_id=record.request_id)

    def _apply_down(self, record: Record, generation: int, *, wished: bool) -> None:
        """The processes of a session that should be up are gone. A start is made again once its worker is done with it.
        An active session sleeps, if somebody may have wished it so, and it has nothing left to do; else it comes back,
        unless it would be put to sleep at once."""
        if record.generation != generation or record.status not in UP:
            return
        if record.status is not Status.ACTIVE:
            if record.started_at and not self._runs(record):
                self._core.sessions.resend(record)
            return
        now = self._clock()
        busy = record.waiting or record.unfinished
        if busy or not (wished or idle_verdict(record, self._core.policy, now).due):
            self._bring_back(record, "what ran it is gone, it is brought up again")
            return
        self._store.change(
            record.uuid,
            now,
            to=Status.SLEEPING,
            expect={"generation": generation, "status": record.status},
            settle=True,
            replicas=0,
            pod_name="",
        )

    def _bring_back(self, record: Record, why: str) -> None:
        log.warning("%s", why, extra={"uuid": record.uuid})
        self._core.sessions.bring_back(record)
        self._core.audit.note_own("bring_back", record.uuid, record.user_id, why, repeatable=True)

    def _still_waits(self, told: Observation) -> bool:
        """Whether another look shows a start that waits as it was told: what feeds the watch may have been silent."""
        seen = self._runtime.observe(told.identity.uuid)
        if seen is None or seen.generation != told.generation:
            return True
        return not seen.ready and not seen.began and seen.code == told.code

    def _runs(self, record: Record) -> bool:
        """Whether its processes are there after all, as of the newest intent: what was seen is a moment old."""
        seen = self._runtime.observe(record.uuid)
        return seen is not None and seen.running and seen.generation == record.generation

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Report while the block runs, its loop goes round and the runtime answers: what hangs would otherwise pass for
        one where nothing happens. Its or Redis' being away for a while is no reason to end the block. Redis' ballast is
        looked after here too: no task can do it, as a full Redis takes none."""
        done = Event()

        def beat() -> None:
            while not done.is_set():
                try:
                    self._core.memory.trim()
                    self._runtime.ping()
                    if self._heart.age < HUNG:
                        self._core.fleet.watcher_alive(self._clock())
                except SessionError as error:
                    log.warning("heartbeat not sent: %s", error)
                done.wait(BEAT)

        thread = Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(BEAT)


def main() -> None:
    """Watch until SIGTERM or SIGINT."""
    settings = Settings.from_env()
    logs.configure(settings.log_level)
    threads.end_process_when_one_dies()
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    core = build_core(settings)
    Watcher(core, runtimes.load(settings), heartbeat=Heartbeat(settings.heartbeat_file)).run(stop)


if __name__ == "__main__":
    main()
