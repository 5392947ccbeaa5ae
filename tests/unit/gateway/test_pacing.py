"""Bounds on what one session may cause."""

from __future__ import annotations

from app.gateway.pacing import Pace
from app.places import Places


def test_the_first_time_is_always_due():
    assert Pace(5.0).due("a", 0.0)


def test_it_is_due_again_after_the_interval_and_for_each_name_apart():
    pace = Pace(5.0)
    seen = [(name, now) for now in range(12) for name in ("a", "b") if pace.due(name, float(now))]
    assert seen == [("a", 0), ("b", 0), ("a", 5), ("b", 5), ("a", 10), ("b", 10)]


def test_it_remembers_no_more_names_than_it_may():
    """The one it forgot is due early; nothing grows without a bound."""
    pace = Pace(5.0, names=2)
    assert [pace.due(name, 0.0) for name in ("a", "b", "c", "b", "c", "a")] == [True, True, True, False, False, True]
    assert len(pace._last) == 2


def test_places_are_bounded_by_name_and_can_be_given_back():
    places = Places()
    assert [places.take("a", 2) for _ in range(3)] == [True, True, False]
    assert places.take("b", 2)
    places.give_back("a")
    assert places.take("a", 2)


def test_a_name_without_places_is_forgotten():
    places = Places()
    places.take("a", 2)
    places.give_back("a")
    assert not places._taken
