"""Items that are slow to fetch: the first before an answer begins, each other while the one before it is used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")


def begun(items: Iterator[T]) -> Iterator[T]:
    """The items, of which the first is fetched before this returns. Raises what fetching it raises."""
    return chain(list(islice(items, 1)), items)


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
