"""The first item is fetched at once, or one ahead, and no more."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextvars import ContextVar
from threading import Event

import pytest

from app.core.ahead import ahead, begun
from tests.waiting import PATIENCE

WHERE = ContextVar("WHERE", default="nowhere")


def test_all_come_in_their_order_in_the_callers_context() -> None:
    def items() -> Iterator[str]:
        for number in range(3):
            yield f"{number} {WHERE.get()}"

    WHERE.set("here")
    assert list(ahead(items())) == ["0 here", "1 here", "2 here"]
    assert list(ahead(iter([]))) == []


def test_the_first_is_fetched_at_once_with_its_error() -> None:
    fetched = []

    def items(last: int) -> Iterator[int]:
        for number in range(last):
            fetched.append(number)
            yield number
        raise ValueError

    given = begun(items(2))
    assert fetched == [0]
    assert [next(given), next(given)] == [0, 1]
    with pytest.raises(ValueError):
        next(given)
    with pytest.raises(ValueError):
        begun(items(0))
    assert list(begun(iter([]))) == []


def test_the_next_one_is_fetched_while_one_is_used() -> None:
    fetched = [Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for number, event in enumerate(fetched):
            event.set()
            yield number

    given = ahead(items())
    assert next(given) == 0
    assert fetched[1].wait(PATIENCE)
    assert not fetched[2].is_set()
    assert list(given) == [1, 2]


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("lost")

    given = ahead(items())
    assert next(given) == 1
    with pytest.raises(OSError, match="lost"):
        next(given)


def test_who_stops_early_leaves_no_thread() -> None:
    """A generator that a thread still ran could not be closed."""

    def items() -> Generator[int, None, None]:
        yield from range(1_000)

    source = items()
    given = ahead(source)
    next(given)
    given.close()
    source.close()
    assert list(source) == []
