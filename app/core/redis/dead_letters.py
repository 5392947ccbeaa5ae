"""Dead letters: tasks that were given up, the newest ones, for operators."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors

KEPT = 1_000


class DeadLetters:
    """The dead-letter list. Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def add(self, dead_letter: Mapping[str, Any]) -> None:
        """Store a task that will not be retried."""
        with redis_errors():
            pipe = self._redis.pipeline()
            pipe.lpush(keys.DEAD_LETTERS, json.dumps(dead_letter))
            pipe.ltrim(keys.DEAD_LETTERS, 0, KEPT - 1)
            pipe.hincrby(keys.COUNTERS, "dead_letters", 1)
            pipe.execute()

    def count(self) -> int:
        """How many dead letters are kept."""
        with redis_errors():
            return int(self._redis.llen(keys.DEAD_LETTERS))

    def read(self) -> list[dict[str, Any]]:
        """The dead letters, newest first."""
        with redis_errors():
            return [json.loads(dead_letter) for dead_letter in self._redis.lrange(keys.DEAD_LETTERS, 0, -1)]
