"""Notifications that a session has changed, over one connection to Redis for all waiting threads of a process.

A notification has no content: the thread that gets it reads what changed. So after a lost connection all threads are
notified, which makes up for lost notifications, and Redis stores nothing for waiting threads.
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
"""s of silence after which a PING is sent; after as many more without a reply the connection is closed."""

PAUSE = 0.5
"""s until a lost connection is made anew; meanwhile all threads are notified as often."""

PUBLISHED = ("message", "subscribe")
"""The replies that are notifications. Messages published before a subscription is confirmed are lost, so its
confirmation is one too."""

LOST = (redis.RedisError, OSError, AttributeError, ValueError)
"""Errors of a lost connection. A command that can't be sent closes the connection while another thread reads from it,
which then finds no socket or buffer."""


class Notices:
    """Notifications of channels, for the threads of one process. `client` has the address of Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._lock = Lock()
        self._waiting: dict[str, set[Event]] = {}
        self._connection: Any = None
        self._listening = False

    @contextmanager
    def subscribe(self, channel: str) -> Iterator[Event]:
        """An event set by each notification of `channel`, and once at first; the waiting thread clears it."""
        news = Event()
        with self._lock:
            others = self._waiting.setdefault(channel, set())
            if others:
                news.set()
            else:
                self._send("SUBSCRIBE", channel)
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
                    self._send("UNSUBSCRIBE", channel)

    def _send(self, command: str, *channels: str) -> None:
        """Send a command if there is a connection; a new connection subscribes to all channels anyway."""
        if self._connection is not None:
            with suppress(redis.RedisError, OSError):
                self._connection.send_command(command, *channels)

    def _listen(self) -> None:
        """Receive notifications while threads wait."""
        while True:
            connection = self._pool.connection_class(**self._pool.connection_kwargs)
            try:
                connection.connect()
                with self._lock:
                    self._connection = connection
                    self._send("SUBSCRIBE", *self._waiting)
                if self._receive(connection):
                    return
            except LOST as error:
                log.warning("the connection for notifications was lost, all waiting threads read anew: %s", error)
            finally:
                with self._lock:
                    if self._connection is connection:
                        self._connection = None
                connection.disconnect()
            if not self._notify_all():
                return
            time.sleep(PAUSE)

    def _receive(self, connection: Any) -> bool:
        """Pass notifications on; True once no thread has waited for a while. Raises one of `LOST`."""
        asked = False
        while True:
            if connection.can_read(timeout=PING_EVERY):
                kind, channel, *_ = connection.read_response()
                asked = False
                if kind in PUBLISHED:
                    self._notify(channel)
            elif asked:
                raise redis.TimeoutError("Redis did not answer a PING.")
            else:
                with self._lock:
                    if not self._waiting:
                        self._listening, self._connection = False, None
                        return True
                    connection.send_command("PING")
                asked = True

    def _notify(self, channel: str) -> None:
        with self._lock:
            waiting = list(self._waiting.get(channel, ()))
        for news in waiting:
            news.set()

    def _notify_all(self) -> bool:
        """Notify all threads; False when none waits, and this thread must end."""
        with self._lock:
            channels = list(self._waiting)
            self._listening = bool(channels)
        for channel in channels:
            self._notify(channel)
        return bool(channels)
