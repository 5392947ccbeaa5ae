"""A store for tests of the process that calls stores: it does as it is told."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from tests.waiting import wait_for


class Shelf:
    """Its `folder` is where the two processes see one another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._waiting = 0

    def answer(self, *given: Any, **named: Any) -> Any:
        """What it was told, and by which object of which process."""
        return given, named, (os.getpid(), id(self))

    def fail(self, error: Exception) -> None:
        raise error

    def die(self) -> None:
        os._exit(1)

    def wait(self) -> int:
        """Wait until there is a file `go`; answers how many waited when it came, with this one."""
        with self._lock:
            self._waiting += 1
            (self._folder / f"waiting-{self._waiting}").touch()
        wait_for((self._folder / "go").exists, "the test")
        with self._lock:
            self._waiting -= 1
            return self._waiting + 1
