"""The heartbeat of Celery's processes: a worker's comes from its event loop, beat's from its ticks.

The event loop stands still while a broker is away: then it is each try to connect, and each second of waiting for the
next (workers/broker.py), that shows that the process works.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import bootsteps
from celery.beat import PersistentScheduler

from workers.heartbeat import EVERY, Heartbeat

log = logging.getLogger(__name__)

STUCK = 30
"""Looks at the pool, `EVERY` seconds apart, that find the same task not begun though a process is free; it takes ms.
Looks and not seconds: while the loop stands still nobody hears of a beginning."""


class PoolWatch:
    """Whether a prefork pool takes tasks. A task that was begun ends: its time limits see to it."""

    def __init__(self) -> None:
        self._untaken: dict[int, int] = {}

    def works(self, pool: Any) -> bool:
        """Look at billiard's pool: it has processes, and none that is free leaves a task lying. Threads have none: what
        they wait for has deadlines."""
        if pool is None:
            return True
        untaken = [number for number, job in pool._cache.items() if not job._accepted]
        if len(pool._cache) - len(untaken) >= len(pool._pool):
            untaken = []
        self._untaken = {number: self._untaken.get(number, 0) + 1 for number in untaken}
        return bool(pool._pool) and all(looks < STUCK for looks in self._untaken.values())


class Pulse(bootsteps.StartStopStep):
    """Lets a worker's event loop beat while its pool works. The `heartbeat` is the application's."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        self._heartbeat: Heartbeat = worker.app.heartbeat
        self._watch = PoolWatch()
        super().__init__(worker, **options)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        """Called with each connection to the broker; Celery takes the timers of the one before away."""
        hub.call_repeatedly(EVERY, self._look, worker.pool._pool)

    def _look(self, pool: Any) -> None:
        if self._watch.works(pool):
            self._heartbeat.beat()
        else:
            log.error("the pool takes no tasks; without a heartbeat this process is ended")


class Scheduler(PersistentScheduler):
    """Beat's, which beats with each tick; a tick that sends something waits for the broker."""

    max_interval = EVERY

    def tick(self, *args: Any, **options: Any) -> Any:
        """See Celery's."""
        self.app.heartbeat.beat()
        return super().tick(*args, **options)
