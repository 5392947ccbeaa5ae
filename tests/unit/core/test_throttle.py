"""Bounds on what one session may cause."""

from __future__ import annotations

import threading

from app.core.throttle import Throttle
from app.http.concurrency import ConcurrencyLimit, Slots


def test_it_is_due_at_once_again_after_the_interval_and_for_each_name_apart():
    throttle = Throttle(5.0)
    seen = [(name, now) for now in range(12) for name in ("a", "b") if throttle.due(name, float(now))]
    assert seen == [("a", 0), ("b", 0), ("a", 5), ("b", 5), ("a", 10), ("b", 10)]


def test_it_remembers_no_more_names_than_it_may():
    """The one it forgot is due early; nothing grows without a bound."""
    throttle = Throttle(5.0, names=2)
    due = [throttle.due(name, 0.0) for name in ("a", "b", "c", "b", "c", "a")]
    assert due == [True, True, True, False, False, True]
    assert len(throttle._last) == 2


def test_slots_are_bounded_by_name_and_can_be_released():
    limit = ConcurrencyLimit()
    assert [limit.acquire("a", 2) for _ in range(3)] == [True, True, False]
    assert limit.acquire("b", 2)
    limit.release("a")
    assert limit.acquire("a", 2)
    for name in ("a", "a", "b"):
        limit.release(name)
    assert not limit._taken, "a name without slots is forgotten"


def test_a_name_has_one_of_the_slots_at_most():
    slots = Slots(2)
    assert [slots.acquire(name, 0.0) for name in ("a", "a", "b", "c")] == [True, False, True, False]
    slots.release("a")
    assert [slots.acquire(name, 0.0) for name in ("b", "c", "a")] == [False, True, False]


def test_who_waits_for_a_slot_gets_it_as_soon_as_it_may():
    """One waits for its own, one for any."""
    slots = Slots(2)
    assert slots.acquire("a", 0.0)
    assert slots.acquire("b", 0.0)
    got: list[str] = []

    def wait(name: str) -> None:
        if slots.acquire(name, threading.TIMEOUT_MAX):
            got.append(name)

    waiting = [threading.Thread(target=wait, args=(name,), daemon=True) for name in ("a", "c")]
    for thread in waiting:
        thread.start()
    slots.release("a")
    slots.release("b")
    for thread in waiting:
        thread.join()
    assert sorted(got) == ["a", "c"]
