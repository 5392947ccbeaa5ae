"""Deaths at any line: a worker that is gone from there on, or a Redis that is killed and started again under it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import redis

from tests.conftest import ROOT
from tests.integration.serving import OwnRedis
from tests.waiting import wait_for

MORTAL = tuple(
    str(ROOT / each)
    for each in (
        *("workers/lifecycle/steps.py", "workers/lifecycle/rolling_back.py", "workers/lifecycle/archiving.py"),
        *("workers/lifecycle/point_making.py", "workers/lifecycle/intents.py", "workers/lifecycle/mark_active.py"),
        "workers/observer.py",
        *("app/core/service.py", "app/core/sessions/", "app/core/backups/", "app/core/prompts/token_usage.py"),
    )
)
"""Where deaths strike."""

FARTHEST = 400
"""Lines from the beginning within which they do: a task has a few hundred."""


class Killed(BaseException):
    """The process ends here. No handler of the code takes it for an error of its own."""


class Fate:
    """Kills what runs within `threatened`, or the Redis that it talks to, with these odds each time. A dead process
    sends nothing more: what its `finally` blocks would still do is no part of a death."""

    def __init__(
        self, dice: random.Random, server: OwnRedis, client: redis.Redis, *, worker: float, store: float
    ) -> None:
        self._dice, self._server = dice, server
        self._worker, self._store = worker, store
        self._dead = False
        self.deaths = {"worker": 0, "redis": 0}
        self._loaded()
        self._connect = client.connection_pool.get_connection
        client.connection_pool.get_connection = self._get_connection

    @contextmanager
    def threatened(self) -> Iterator[None]:
        """A process that may die at any line; raises `Killed` if it did."""
        drawn = self._dice.random()
        victim = "worker" if drawn < self._worker else "redis" if drawn < self._worker + self._store else ""
        left = self._dice.randint(1, FARTHEST)

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal left
            if not frame.f_code.co_filename.startswith(MORTAL):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    self._strike(victim)
            return trace

        sys.settrace(trace if victim else None)
        try:
            yield
        finally:
            sys.settrace(None)
            self._dead = False

    def _strike(self, victim: str) -> None:
        self.deaths[victim] += 1
        if victim == "redis":
            self._server.kill()
            self._server.start()
            wait_for(self._loaded, "redis has its data again")
            return
        self._dead = True
        raise Killed

    def _loaded(self) -> bool:
        """Whether it answers. Then it also keeps all that it acknowledged: by default it may lose two seconds, which
        are hours of a clock that is made to run fast."""
        with redis.Redis.from_url(self._server.url) as client:
            try:
                return bool(client.config_set("appendfsync", "always"))
            except redis.RedisError:
                return False

    def _get_connection(self, *args: Any, **options: Any) -> Any:
        if self._dead:
            raise Killed
        return self._connect(*args, **options)
