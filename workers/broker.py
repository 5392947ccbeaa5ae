"""Celery's connection to Redis, with two corrections.

A message that does not belong into its queue is refused. Only the transport knows the queue from which a message was
taken; Celery sees only what the message claims.

A worker survives the loss of Redis at any moment. When a connection breaks, Celery closes it twice: by `collect`, which
forgets its address, then by `close`. kombu's channel (5.7.0) reads the reply to its BRPOP before it closes. If another
socket, that of remote control, noticed first that Redis died, that read fails and the channel stays open. `close` then
closes it again: it wants to return the worker's messages, needs a connection, asks for its address, and the worker dies
of `'NoneType' object has no attribute 'hostname'`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu import transport
from kombu.transport import redis

NAMES = ("redis", "rediss")
"""The schemes of broker URLs."""


class Channel(redis.Channel):
    """A channel that is always closed after `close`."""

    def close(self) -> None:
        """Close it; raises one of `connection_errors` when Redis is unavailable."""
        try:
            super().close()
        except self.connection_errors:
            # Nothing is left to read, so this time it closes. Closing a closed channel does nothing.
            super().close()


class Transport(redis.Transport):
    """kombu's transport with this channel. `trying` is called before each attempt to connect; `admitting` gets each
    message and the name of its queue, and returns the message to be worked on, or None to refuse it."""

    Channel = Channel
    trying: Callable[[], None] = staticmethod(lambda: None)
    admitting: Callable[[Any, str], Any] = staticmethod(lambda message, queue: message)

    def establish_connection(self) -> Any:
        """See kombu's."""
        self.trying()
        return super().establish_connection()

    def _deliver(self, message: Any, queue: str) -> None:
        admitted = self.admitting(message, queue)
        if admitted is not None:
            super()._deliver(admitted, queue)


def register(trying: Callable[[], None], admitting: Callable[[Any, str], Any]) -> None:
    """Use this transport with these hooks for all new connections of this process to `redis://` and `rediss://`."""
    Transport.trying, Transport.admitting = staticmethod(trying), staticmethod(admitting)
    for name in NAMES:
        transport.TRANSPORT_ALIASES[name] = f"{__name__}:Transport"
