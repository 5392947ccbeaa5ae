"""Waiting for something that another thread, process or machine does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

PATIENCE = 60.0
"""Seconds after which a test gives up on something that takes well under one; no test measures it."""


class GaveUp(AssertionError):
    """What was waited for did not happen in time. tests/plugins/second_try.py tries such a test once more."""


def wait_for(
    condition: Callable[[], Result | None],
    what: str,
    seen: Callable[[], str] = lambda: "",
    seconds: float = PATIENCE,
    interval: float = 0.05,
) -> Result:
    """Call `condition` every `interval` seconds, at first after a fraction of that, and return its first true result.

    `GaveUp`, naming `what` and `seen()`, if there is none after `seconds`.
    """
    deadline = time.monotonic() + seconds
    pause = interval / 32
    while not (result := condition()):
        if time.monotonic() >= deadline:
            raise GaveUp(f"not within {seconds:g} s: {what}. {seen()}".rstrip())
        time.sleep(pause)
        pause = min(2 * pause, interval)
    return result
