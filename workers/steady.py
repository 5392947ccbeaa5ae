"""Telling a clock that jumped from time that passed.

After a jump forward (a machine that was suspended, a corrected clock) everything looks unused for as long as it was.
Before anything is judged by that, whoever uses it gets the time to be seen again.
"""

from __future__ import annotations

JUMP = 30.0
"""s the clock may gain on the monotonic one between two looks; adjusting it gradually stays far below."""

SETTLING = 60.0
"""s from a jump until ages can be trusted: agents tell of use every 10 s, and may have slept just as long."""


class Steady:
    """Compares the clock with a monotonic one from look to look; each process has its own."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._trusted_from = float("-inf")

    def trusts(self, now: float, ticks: float) -> bool:
        """Whether the time `now` (s since the epoch) may be compared with times noted before; `ticks` is monotonic."""
        offset = now - ticks
        if self._offset is not None and offset - self._offset > JUMP:
            self._trusted_from = ticks + SETTLING
        self._offset = offset
        return ticks >= self._trusted_from
