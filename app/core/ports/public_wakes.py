"""How often the visitors of public ports wake a workspace: anybody can be one, and each wake costs its owner."""

from __future__ import annotations

import redis

from app.core.redis.errors import redis_errors
from app.core.redis.keys import PUBLIC_WAKES

HOUR = 3_600


class PublicWakes:
    """Counts the wakes, of which there are `most` in an hour. Raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis, most: int) -> None:
        self._redis = client
        self._most = most

    @redis_errors
    def take(self, uuid: str) -> bool:
        """Whether the session may be woken by a visitor once more within the hour that began with the first; counts
        it."""
        pipe = self._redis.pipeline()
        pipe.set(PUBLIC_WAKES.format(uuid=uuid), 0, ex=HOUR, nx=True)
        pipe.incr(PUBLIC_WAKES.format(uuid=uuid))
        return int(pipe.execute()[1]) <= self._most
