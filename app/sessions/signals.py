"""Stands in for the signals of use until they are there: takes what the door notes, and keeps none of it."""

from __future__ import annotations

import redis


class Signals:
    """What keeps a session up."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def note(self, uuid: str, name: str, at: float, until: float = 0.0) -> None:
        """Somebody or something used the session."""
