"""Who of the service is alive, what it has counted, and the tasks it gave up on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import redis

from app.sessions import keys
from app.sessions.redis_errors import redis_errors

WORKER_SILENCE = 15.0
"""s: workers report every 2 s; a few reports may be missed under load."""

WATCHER_SILENCE = 10.0
"""s: the watcher reports every second; a silent one means the records may be untrue."""

DEAD_LETTERS_KEPT = 1_000
DELIVERIES_TTL = 86_400


class Fleet:
    """Heartbeats, counters and dead letters of all processes. Times are seconds since the epoch."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def worker_alive(self, name: str, now: float) -> None:
        with redis_errors():
            pipe = self._redis.pipeline()
            pipe.zadd(keys.WORKERS_SEEN, {name: now})
            pipe.zremrangebyscore(keys.WORKERS_SEEN, "-inf", now - WORKER_SILENCE)
            pipe.execute()

    def workers(self, now: float) -> int:
        """How many workers reported lately."""
        with redis_errors():
            return int(self._redis.zcount(keys.WORKERS_SEEN, now - WORKER_SILENCE, "+inf"))

    def watcher_alive(self, now: float) -> None:
        with redis_errors():
            self._redis.set(keys.WATCHER_SEEN, f"{now:.3f}")

    def watcher_age(self, now: float) -> float | None:
        """Seconds since the watcher last reported, None when it never did."""
        with redis_errors():
            seen = self._redis.get(keys.WATCHER_SEEN)
        return max(0.0, now - float(seen)) if seen else None

    def count(self, name: str) -> None:
        """Add one to a counter that only grows."""
        with redis_errors():
            self._redis.hincrby(keys.COUNTERS, name, 1)

    def counters(self) -> dict[str, int]:
        with redis_errors():
            return {name: int(value) for name, value in self._redis.hgetall(keys.COUNTERS).items()}

    def delivered(self, task_id: str) -> int:
        """Note one more delivery of a task; answers which one it is, from 1."""
        with redis_errors():
            pipe = self._redis.pipeline()
            pipe.incr(keys.DELIVERIES.format(task_id=task_id))
            pipe.expire(keys.DELIVERIES.format(task_id=task_id), DELIVERIES_TTL)
            return int(pipe.execute()[0])

    def done(self, task_id: str) -> None:
        """The task ended by itself; its deliveries need not be remembered."""
        with redis_errors():
            self._redis.delete(keys.DELIVERIES.format(task_id=task_id))

    def bury(self, letter: Mapping[str, Any]) -> None:
        """Put a task aside that will not be tried again."""
        with redis_errors():
            pipe = self._redis.pipeline()
            pipe.lpush(keys.DEAD_LETTERS, json.dumps(letter))
            pipe.ltrim(keys.DEAD_LETTERS, 0, DEAD_LETTERS_KEPT - 1)
            pipe.hincrby(keys.COUNTERS, "dead_letters", 1)
            pipe.execute()

    def dead_letters(self) -> list[dict[str, Any]]:
        """The tasks given up on, newest first."""
        with redis_errors():
            return [json.loads(letter) for letter in self._redis.lrange(keys.DEAD_LETTERS, 0, -1)]

    def backlog(self, queues: tuple[str, ...]) -> dict[str, int]:
        """How many tasks wait in each queue."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for queue in queues:
                pipe.llen(queue)
            return dict(zip(queues, (int(n) for n in pipe.execute()), strict=True))

    def ping(self) -> None:
        """Raises `StateUnavailable` when Redis does not answer."""
        with redis_errors():
            self._redis.ping()
