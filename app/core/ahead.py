"""Overlaps two slow ends: an item is fetched while the one before it is used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The items, of which one is fetched ahead by another thread, in the caller's context. Raises what fetching
    raises."""
    context = copy_context()
    with ThreadPoolExecutor(1) as fetcher:
        following = fetcher.submit(context.run, _fetch, items)
        while found := following.result():
            following = fetcher.submit(context.run, _fetch, items)
            yield found[0]


def _fetch(items: Iterator[T]) -> list[T]:
    """The next item, none at the end. A `StopIteration` would not pass through a future."""
    for item in items:
        return [item]
    return []
