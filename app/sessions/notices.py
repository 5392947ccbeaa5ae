"""Who waits for a session hears that there is news of it: one connection to Redis for all that wait in a process.

A notice says nothing but "look": whoever hears it reads what changed. So one that was lost with the connection is made
up for by telling everyone to look, and Redis keeps nothing for those who wait.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from typing import Any

import redis

log = logging.getLogger(__name__)

PING_EVERY = 2.0
"""s without a word after which the connection is asked whether it is one still; after as many more it is given up."""

PAUSE = 0.5
"""s until a lost connection is made anew; those who wait look for themselves as often."""

PUBLISHED = ("message", "subscribe")
"""Of what comes on the connection, what is a notice. What was published before a subscription stands is not heard, so
that it stands is one as well."""

LOST = (redis.RedisError, OSError, AttributeError, ValueError)
"""What the end of a connection is told by. A command that can't be sent closes it under whoever reads from it, who then
finds no socket or buffer."""


class Notices:
    """Notices of channels, for the threads of one process. `client` gives the address of Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._lock = Lock()
        self._waiting: dict[str, set[Event]] = {}
        self._connection: Any = None
        self._listening = False

    @contextmanager
    def of(self, channel: str) -> Iterator[Event]:
        """An event that is set by each notice of `channel`, and at first; who waits clears it."""
        news = Event()
        with self._lock:
            others = self._waiting.setdefault(channel, set())
            if others:
                news.set()
            else:
                self._say("SUBSCRIBE", channel)
            others.add(news)
            if not self._listening:
                self._listening = True
                Thread(target=self._listen, name="notices", daemon=True).start()
        try:
            yield news
        finally:
            with self._lock:
                others.discard(news)
                if not others:
                    del self._waiting[channel]
                    self._say("UNSUBSCRIBE", channel)

    def _say(self, command: str, *channels: str) -> None:
        """Send a command while there is a connection; who makes one subscribes to all there is."""
        if self._connection is not None:
            with suppress(redis.RedisError, OSError):
                self._connection.send_command(command, *channels)

    def _listen(self) -> None:
        """Hear notices for as long as somebody waits."""
        while True:
            connection = self._pool.connection_class(**self._pool.connection_kwargs)
            try:
                connection.connect()
                with self._lock:
                    self._connection = connection
                    self._say("SUBSCRIBE", *self._waiting)
                if self._hear(connection):
                    return
            except LOST as error:
                log.warning("notices are not heard, all look for themselves: %s", error)
            finally:
                with self._lock:
                    if self._connection is connection:
                        self._connection = None
                connection.disconnect()
            if not self._tell_all():
                return
            time.sleep(PAUSE)

    def _hear(self, connection: Any) -> bool:
        """Pass notices on; True once nobody has waited for a while. Raises what ends the connection."""
        asked = False
        while True:
            if connection.can_read(timeout=PING_EVERY):
                kind, channel, *_ = connection.read_response()
                asked = False
                if kind in PUBLISHED:
                    self._tell(channel)
            elif asked:
                raise redis.TimeoutError("Redis does not answer.")
            else:
                with self._lock:
                    if not self._waiting:
                        self._listening, self._connection = False, None
                        return True
                    connection.send_command("PING")
                asked = True

    def _tell(self, channel: str) -> None:
        with self._lock:
            waiting = list(self._waiting.get(channel, ()))
        for news in waiting:
            news.set()

    def _tell_all(self) -> bool:
        """False when there is nobody: then this thread ends."""
        with self._lock:
            channels = list(self._waiting)
            self._listening = bool(channels)
        for channel in channels:
            self._tell(channel)
        return bool(channels)
