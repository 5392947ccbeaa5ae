"""Detects jumps of the system clock.

After a jump forward (a suspended machine, a corrected clock) every session looks unused for the length of the jump.
Before a session is judged by its age, its user must have had the time to be noticed again.
"""

from __future__ import annotations

JUMP = 30.0
"""s the clock may gain on the monotonic clock between two checks; gradual adjustment stays far below."""

SETTLING = 60.0
"""s from a jump until ages are trusted again: agents report activity every 10 s, and may have been suspended too."""


class ClockGuard:
    """Compares the clock with the monotonic clock; each process has its own guard."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._trusted_from = float("-inf")

    def trusts(self, now: float, ticks: float) -> bool:
        """Whether the time `now` (s since the epoch) may be compared with earlier times; `ticks` is monotonic (s)."""
        offset = now - ticks
        if self._offset is not None and offset - self._offset > JUMP:
            self._trusted_from = ticks + SETTLING
        self._offset = offset
        return ticks >= self._trusted_from
