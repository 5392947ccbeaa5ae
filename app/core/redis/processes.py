"""The service's processes: each reports itself every few seconds, and an operator sees which are alive.

Each kind has a hash of its own, so that a process may write about its own kind alone. Times are those of Redis' clock:
processes run on several machines, whose clocks may differ.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread

import redis

from app.core.errors import SessionError, StateUnavailable
from app.core.redis import keys
from app.core.redis.connections import connect
from app.core.redis.errors import redis_errors
from app.process.settings import Settings

log = logging.getLogger(__name__)

KINDS = (
    *("web", "forward-auth", "gateway"),
    *("worker", "sweeper", "backup-worker", "delivery-worker"),
    *("observer", "beat"),
)
"""The processes of the manager, as the Procfile and the manifests name them."""

EVERY = 5.0
"""s between two reports of a process."""

SILENCE = 20.0
"""s without a report after which a process is silent: three may be lost."""

FORGOTTEN = 600.0
"""s for which a silent process is shown; one that ends as it should removes itself."""

MOST = 500
"""Processes of a kind that are shown; a service has a few."""


@dataclass(frozen=True)
class Process:
    """A process. `since` is when it began and `seen` when it last reported (s since the epoch); None if none of its
    kind ever did. `skew` is how far its clock is ahead of Redis' (s)."""

    name: str
    kind: str
    host: str | None
    since: float | None
    seen: float | None
    alive: bool
    skew: float = 0.0


class Processes:
    """Reports of processes. Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.time) -> None:
        self._redis = client
        self._clock = clock

    @redis_errors
    def report(self, kind: str, name: str, host: str, began: float) -> None:
        """A process is alive; `began` is when it started, by its own clock."""
        now = self._time()
        skew = self._clock() - now
        told = {"host": host, "since": round(began - skew, 3), "seen": round(now, 3), "skew": round(skew, 3)}
        self._redis.hset(_key(kind), name, json.dumps(told))

    def tidy(self, kind: str) -> None:
        """Forget the processes of a kind that have long been silent."""
        now = self._time()
        for each in self._read(kind, now):
            if now - (each.seen or now) > FORGOTTEN:
                self.leave(kind, each.name)

    @redis_errors
    def leave(self, kind: str, name: str) -> None:
        """A process ends as it should."""
        self._redis.hdel(_key(kind), name)

    def all(self) -> list[Process]:
        """The processes by kind and name. A kind of which none reports is one silent process without a host."""
        now = self._time()
        found = []
        for kind in KINDS:
            recent = not_replaced([each for each in self._read(kind, now) if now - (each.seen or now) <= FORGOTTEN])
            nobody = Process(name=kind, kind=kind, host=None, since=None, seen=None, alive=False)
            found += sorted(recent, key=lambda each: each.name)[:MOST] or [nobody]
        return found

    @redis_errors
    def _read(self, kind: str, now: float) -> list[Process]:
        told = self._redis.hgetall(_key(kind))
        found = []
        for name, text in told.items():
            # A compromised process may write anything about its own kind.
            with suppress(ValueError, TypeError, KeyError):
                of = json.loads(text)
                since, seen, skew = float(of["since"]), float(of["seen"]), float(of["skew"])
                alive = now - seen <= SILENCE
                found.append(Process(name[:128], kind, str(of["host"])[:128], since, min(seen, now), alive, skew))
        return found

    @redis_errors
    def _time(self) -> float:
        """Redis' clock."""
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6


def not_replaced(processes: Sequence[Process]) -> list[Process]:
    """The processes of a kind without the silent ones whose place another has taken: one that is alive and began since
    the silent one last reported takes the place of one, of its own host first."""
    free = sorted((each for each in processes if each.alive), key=lambda each: each.since or 0.0)
    silent = sorted((each for each in processes if not each.alive), key=lambda each: each.seen or 0.0)
    for same_host in (True, False):
        for gone in tuple(silent):
            younger = (each for each in free if (each.since or 0.0) >= (gone.seen or 0.0))
            successor = next((each for each in younger if each.host == gone.host or not same_host), None)
            if successor is not None:
                free.remove(successor)
                silent.remove(gone)
    return [each for each in processes if each.alive] + silent


class Reporter:
    """Reports one process, whose loop calls `tick` as often as it likes. Redis being away is only logged."""

    def __init__(
        self,
        client: redis.Redis,
        kind: str,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes = Processes(client, clock)
        self._kind, self._host = kind, socket.gethostname()
        self._name = f"{kind}@{self._host}:{os.getpid()}"
        self._began = clock()
        self._ticks = ticks
        self._due = float("-inf")
        self._tidy = True

    def tick(self) -> None:
        """Report, unless that was done within `EVERY`; the first time also forget those that are long gone."""
        if self._ticks() < self._due:
            return
        self._due = self._ticks() + EVERY
        try:
            self._processes.report(self._kind, self._name, self._host, self._began)
            if self._tidy:
                self._processes.tidy(self._kind)
                self._tidy = False
        except StateUnavailable as error:
            log.warning("this process was not reported: %s", error)

    def leave(self) -> None:
        """The process ends as it should."""
        with suppress(SessionError):
            self._processes.leave(self._kind, self._name)


def _key(kind: str) -> str:
    return keys.PROCESSES.format(kind=kind)


class Reports:
    """Reports from a thread of its own until `stop`, while the process `works`; after each report does `also`. Under
    gevent the thread is a greenlet, so its reports show that the hub turns."""

    def __init__(
        self, reporter: Reporter, works: Callable[[], bool] = lambda: True, also: Callable[[], None] = lambda: None
    ) -> None:
        self._reporter = reporter
        self._works = works
        self._also = also
        self._stop = Event()
        self._thread = Thread(target=self._run, name="process-reports", daemon=True)

    def start(self) -> Reports:
        """Begin; answers itself."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """The process ends as it should."""
        self._stop.set()
        self._reporter.leave()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._also()
            self._stop.wait(EVERY)

    def look(self) -> None:
        """Report, if the process works."""
        if self._works():
            self._reporter.tick()


def report_process(
    kind: str, settings: Settings, works: Callable[[], bool] = lambda: True, also: Callable[[], None] = lambda: None
) -> Reports:
    """Report this process from now on. Call it after any fork."""
    return Reports(Reporter(connect(settings.redis_url), kind), works, also).start()
