"""One holder at a time of something that several commands share, such as a cache they build into."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL = 0.2
"""Seconds between two tries."""


@contextmanager
def only_one(path: Path, limit: float, error: type[Exception]) -> Iterator[None]:
    """Lock the file `path`, created if need be; raises `error` if another process holds it for `limit` seconds.

    The kernel releases the lock when the process ends.
    """
    deadline = time.monotonic() + limit
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise error(f"Another process has held {path} for {limit:.0f} s.") from None
                time.sleep(POLL)
        yield
