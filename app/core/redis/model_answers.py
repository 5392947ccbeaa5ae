"""The last answer of the model's API, which the gateway asks once a minute: it alone has the key and the network."""

from __future__ import annotations

import json
from dataclasses import dataclass

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors

KEPT = 3_600
"""s for which an answer is kept."""


@dataclass(frozen=True)
class ModelAnswer:
    """The status of an answer, or the kind of the `error` if there was none. It came after `ms`, `age` s ago."""

    age: float
    status: int = 0
    error: str = ""
    ms: int = 0


class ModelAnswers:
    """Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    @redis_errors
    def note(self, now: float, *, status: int = 0, error: str = "", ms: int = 0) -> None:
        """Note an answer that came at `now` (s since the epoch)."""
        told = json.dumps({"at": now, "status": status, "error": error, "ms": ms})
        self._redis.set(keys.MODEL_SEEN, told, ex=KEPT)

    @redis_errors
    def last(self, now: float) -> ModelAnswer | None:
        """The last answer, None without one. A compromised gateway may write anything."""
        told = self._redis.get(keys.MODEL_SEEN)
        try:
            of = json.loads(told or "null")
            age = max(0.0, now - float(of["at"]))
            return ModelAnswer(age, int(of["status"]), str(of["error"])[:64], int(of["ms"]))
        except (ValueError, TypeError, KeyError):
            return None
