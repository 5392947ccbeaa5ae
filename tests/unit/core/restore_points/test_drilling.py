"""How often restore points are proven: each session once in a cycle, however many became due together."""

from __future__ import annotations

import pytest

from app.core.restore_points.drilling import due_before, first_seen, most_at_once
from app.process.settings import Settings

WEEK = 604_800.0


@pytest.mark.parametrize("cycle", [40.0, 3_600.0, WEEK])
@pytest.mark.parametrize("sessions", [1, 7, 1_000])
def test_each_session_is_proven_once_in_a_cycle(sessions: int, cycle: float) -> None:
    """Of sessions that were all proven at the same time, each is again before its cycle ends, and none much oftener
    than the last quarter asks for."""
    proven = dict.fromkeys(range(sessions), 0.0)
    oldest, drills, now = 0.0, 0, 0.0
    interval = Settings(drill_cycle=cycle).drill_interval
    while now < 4 * cycle:
        now += interval
        due = sorted(each for each in proven if proven[each] <= due_before(cycle, now))
        for each in sorted(due, key=lambda each: proven[each])[: most_at_once(sessions, cycle, interval)]:
            proven[each], drills = now, drills + 1
        oldest = max(oldest, now - min(proven.values()))
    assert oldest <= cycle + interval
    assert 3 * sessions <= drills <= 6 * sessions


def test_a_sweep_runs_every_few_minutes_or_oftener_in_a_short_cycle() -> None:
    assert [Settings(drill_cycle=cycle).drill_interval for cycle in (WEEK, 40.0, 0.0)] == [300, 1, 300]


def test_a_session_that_was_forgotten_is_due_and_not_late() -> None:
    now = 10 * WEEK
    assert first_seen(0.0, 1.0, WEEK, now) == now - WEEK
    assert first_seen(now - 5, 1.0, WEEK, now) == now - 5
    assert first_seen(0.0, now - 3, WEEK, now) == now - 3
    assert due_before(WEEK, now) > now - WEEK
