"""Celery's connection to Redis, with two corrections.

A message that does not belong into its queue is refused. Only the transport knows the queue from which a message was
taken; Celery sees only what the message claims.

A worker survives the loss of Redis at any moment. It takes no message while it has as many unacknowledged ones as it
may have (prefetch), and then waits at no socket of Redis, since remote control is off. kombu (5.7.0) only logs an
acknowledgement that fails, and counts the message as unacknowledged for ever. So a worker that lost Redis while it
acknowledged its last messages would take no more, and notice nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu import transport
from kombu.transport import redis

NAMES = ("redis", "rediss")
"""The schemes of broker URLs."""


class QoS(redis.QoS):
    """Counts a message as done though Redis could not be told. Redis keeps it, and returns it to its queue after the
    visibility timeout."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message; raises one of the channel's `connection_errors` when Redis is unavailable."""
        try:
            super().ack(delivery_tag)
        except self.channel.connection_errors:
            self._quick_ack(delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message back, or drop it; raises like `ack`."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        except self.channel.connection_errors:
            self._quick_ack(delivery_tag)
            raise


class Channel(redis.Channel):
    """A channel that counts so."""

    QoS = QoS


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
