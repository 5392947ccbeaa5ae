"""The heartbeat of a process: a file that it touches while it works.

The loop that does the work touches the file, not a thread beside it, which would continue while the work hangs. A
process whose file grows old is ended: locally by scripts/run, in a cluster by the pod's liveness probe. A process
that waits for an unavailable Redis or API server goes on touching the file.
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
"""s between two beats; a beat that comes sooner does nothing."""


class Heartbeat:
    """Touches `file`, "" for none. Only beats of the process and thread that created it count: a forked child or
    another thread shows nothing about the loop."""

    def __init__(self, file: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = Path(file) if file else None
        self._clock = clock
        self._owner = (os.getpid(), threading.get_ident())
        self._last = clock()
        self._due = 0.0

    def beat(self) -> None:
        """Note that the loop is running."""
        if self._owner != (os.getpid(), threading.get_ident()):
            return
        self._last = self._clock()
        if self._file is None or self._last < self._due:
            return
        self._due = self._last + EVERY
        try:
            self._file.touch()
        except OSError as error:
            log.warning("the heartbeat file was not touched: %s", error.strerror)

    @property
    def age(self) -> float:
        """Seconds since the last beat; any thread may ask."""
        return self._clock() - self._last
