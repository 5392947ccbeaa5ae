"""Celery's connection to Redis, with one thing put right: a worker outlives the loss of Redis whatever it was doing.

When a connection broke, Celery closes it twice: `collect`, which forgets where it led, then `close`. kombu's channel
(5.7.0) reads the answer to its BRPOP before it closes. Where another socket, that of remote control, noticed first that
Redis had died, that read fails, and the channel stays open. `close` closes it once more: it wants to hand back the
messages the worker has, needs a connection, asks where that is to lead, and the worker ends of `'NoneType' object has
no attribute 'hostname'`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu import transport
from kombu.transport import redis

NAMES = ("redis", "rediss")
"""The schemes of broker URLs."""


class Channel(redis.Channel):
    """A channel that is closed when `close` is over."""

    def close(self) -> None:
        """Close it; raises one of `connection_errors` where Redis is away."""
        try:
            super().close()
        except self.connection_errors:
            # Nothing is to be read any more: this time it goes on to the end. One that is closed stays so.
            super().close()


class Transport(redis.Transport):
    """kombu's, with our channels; `trying` is called before each try to connect."""

    Channel = Channel
    trying: Callable[[], None] = staticmethod(lambda: None)

    def establish_connection(self) -> Any:
        """See kombu's."""
        self.trying()
        return super().establish_connection()


def register(trying: Callable[[], None]) -> None:
    """Let every connection made from now on in this process to `redis://` and `rediss://` be ours; each try to make
    one calls `trying` first."""
    Transport.trying = staticmethod(trying)
    for name in NAMES:
        transport.TRANSPORT_ALIASES[name] = f"{__name__}:Transport"
