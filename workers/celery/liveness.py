"""The heartbeats of Celery's processes: a worker beats from its event loop, beat from its ticks.

The event loop stops while the broker is unavailable: then each attempt to connect (workers/celery/broker.py) is a
heartbeat.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from celery import bootsteps
from celery.beat import PersistentScheduler

from workers.heartbeat_file import EVERY, Heartbeat

log = logging.getLogger(__name__)

STUCK = 30
"""Checks of the pool, `EVERY` seconds apart, that find the same task not begun though a process is free; a task begins
in ms. Counted in checks, not seconds: while the event loop stops, it does not learn that a task has begun."""


class PoolWatch:
    """Checks whether a prefork pool takes tasks. A task that has begun ends by its time limits."""

    def __init__(self) -> None:
        self._untaken: dict[int, int] = {}

    def works(self, pool: Any) -> bool:
        """Check billiard's pool: it has processes, and no task waits while one of them is free. A thread pool is None:
        its tasks have deadlines."""
        if pool is None:
            return True
        untaken = [number for number, job in pool._cache.items() if not job._accepted]
        if len(pool._cache) - len(untaken) >= len(pool._pool):
            untaken = []
        self._untaken = {number: self._untaken.get(number, 0) + 1 for number in untaken}
        return bool(pool._pool) and all(looks < STUCK for looks in self._untaken.values())


class HeartbeatStep(bootsteps.StartStopStep):
    """Beats from a worker's event loop while its pool works, with the application's `heartbeat`."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        self._heartbeat: Heartbeat = worker.app.heartbeat
        self._watch = PoolWatch()
        super().__init__(worker, **options)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Called with each connection to the broker; Celery removes the timers of the one before."""
        hub.call_repeatedly(EVERY, self._look, worker.pool._pool)

    def _look(self, pool: Any) -> None:
        if self._watch.works(pool):
            self._heartbeat.beat()
        else:
            log.error("the pool takes no tasks; without heartbeats this process will be ended")


def now() -> datetime:
    """The time for beat's schedules. Celery's own converts time zones several times for each task, which took a third
    of beat's CPU time."""
    return datetime.now(UTC)


class Scheduler(PersistentScheduler):
    """Beat's scheduler with a heartbeat and a report at each tick; a tick that sends a task waits for the broker."""

    max_interval = EVERY

    def tick(self, *args: Any, **options: Any) -> Any:
        """See Celery's."""
        self.app.heartbeat.beat()
        self.app.reporter.tick()
        return super().tick(*args, **options)

    def close(self) -> None:
        """See Celery's."""
        self.app.reporter.leave()
        super().close()
