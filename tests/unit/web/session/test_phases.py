"""The bar of a start's phases."""

from __future__ import annotations

from app.web.session.phases import WIDTH, steps_of


def test_each_phase_is_as_wide_as_it_took() -> None:
    steps = steps_of({"enqueued": 100, "started": 400, "ready": 1_000})
    assert [(step.label, step.ms) for step in steps] == [("queue", 100), ("process", 300), ("editor", 600)]
    assert [(step.x, step.width) for step in steps] == [(0, 10), (10, 30), (40, 60)]


def test_short_phases_can_be_seen_and_all_fit() -> None:
    steps = steps_of({"enqueued": 0, "scheduled": 1, "volume": 1, "ready": 60_000})
    assert all(step.width > 0.9 for step in steps)
    assert abs(steps[-1].x + steps[-1].width - WIDTH) < 0.1
    assert steps_of({}) == []
