"""Waiting for what can only be asked for again and again."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(done: Callable[[], object], seconds: float, tick: float) -> bool:
    """Call `done` every `tick` seconds until it is true; False when it was not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(tick)
    return True
