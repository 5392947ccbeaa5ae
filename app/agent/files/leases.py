"""Ids in use: what nobody has used for a while is dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

ABANDONED = 300.0
"""Seconds without a use after which an id is dropped: a caller may take 150 for a piece."""

LOOK = 10.0
"""Seconds between two looks for abandoned ones."""


class Leases:
    """Calls `drop` with each id that was not used for `ABANDONED` seconds; it is to end it. Thread-safe."""

    def __init__(self, drop: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._drop = drop
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._watched = False

    def begin(self, id_: str) -> None:
        """Watch a new id."""
        with self._lock:
            self._last[id_] = self._clock()
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, name="leases", daemon=True).start()

    def use(self, id_: str) -> bool:
        """Note that the id is in use; whether it still is."""
        with self._lock:
            if id_ in self._last:
                self._last[id_] = self._clock()
            return id_ in self._last

    def end(self, id_: str) -> None:
        """Watch it no longer."""
        with self._lock:
            self._last.pop(id_, None)

    def _watch(self) -> None:
        """Drop abandoned ones, as long as there are any."""
        while True:
            time.sleep(LOOK)
            late = self._clock() - ABANDONED
            with self._lock:
                abandoned = [id_ for id_, last in self._last.items() if last < late]
            for id_ in abandoned:
                self._drop(id_)
            with self._lock:
                if not self._last:
                    # The next one starts another thread.
                    self._watched = False
                    return
