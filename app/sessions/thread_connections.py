"""Redis connections for a process of threads: each keeps one of its own.

redis-py's pool asks the socket, at each command, whether an old answer still lies in it: three system
calls, a third of what a short command costs. A connection that never changes hands needs neither that
nor a lock. One that broke is found when it is used, and the client's retry then connects again.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import redis


class ThreadConnections(redis.ConnectionPool):
    """One connection for each thread that asks. Unfit for pub/sub, which would keep it; a connection
    goes when its thread does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._own = threading.local()

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """This thread's connection, connected; what connecting raises is for the caller to handle."""
        connection = getattr(self._own, "connection", None)
        if connection is None or self._own.made_by != os.getpid():
            connection = self.connection_class(**self.connection_kwargs)
            self._own.connection, self._own.made_by = connection, os.getpid()
        connection.connect()
        return connection

    def release(self, connection: Any) -> None:
        """The thread keeps it; one whose answer was not read to its end is closed by the client before."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close this thread's connection; the others' close with their threads."""
        connection = getattr(self._own, "connection", None)
        if connection is not None:
            connection.disconnect()
