"""When a workspace of a real cluster falls asleep by itself (the suite is tests/suites/falling_asleep.py): its signs
pass from one container to the other, and to the manager; the editor's has `keep`, and shows what a program waits
for."""

from __future__ import annotations

from tests.suites.falling_asleep import FallingAsleep, sleepy

__all__ = ["sleepy"]


class TestFallingAsleepOnCluster(FallingAsleep):
    """The whole product, as the overlay `dev` puts it there."""
