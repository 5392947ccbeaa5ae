"""A process's sign that it does its work: a file that it touches.

It is touched from the loop that does the work, never from a thread beside it, which would go on while the work hangs.
Whoever runs the process ends one whose file grows old: scripts/respawn locally, the pod's liveness probe in a cluster.
Waiting for a Redis or an API server that is away is work: whoever tries again goes on touching.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

EVERY = 1.0
"""s between two beats; those that come sooner do nothing."""


class Heartbeat:
    """Touches `file`, "" for none. Only the process and the thread that made it count: a forked child, or another
    thread, says nothing of the loop."""

    def __init__(self, file: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = Path(file) if file else None
        self._clock = clock
        self._owner = (os.getpid(), threading.get_ident())
        self._last = clock()
        self._due = 0.0

    def beat(self) -> None:
        """Say that the loop goes round."""
        if self._owner != (os.getpid(), threading.get_ident()):
            return
        self._last = self._clock()
        if self._file is None or self._last < self._due:
            return
        self._due = self._last + EVERY
        try:
            self._file.touch()
        except OSError as error:
            log.warning("heartbeat not noted: %s", error.strerror)

    @property
    def age(self) -> float:
        """Seconds since the last beat; any thread may ask."""
        return self._clock() - self._last
