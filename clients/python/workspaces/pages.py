"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from workspaces.errors import InvalidAnswer


class Paged(Protocol):
    """A page: `next_cursor` is where the next one begins, None at the end."""

    @property
    def next_cursor(self) -> str | None: ...


P = TypeVar("P", bound=Paged)
T = TypeVar("T")


class Pages(Generic[P, T]):
    """A list: iterate over it for the items of all its pages, which are asked for as they are needed. To iterate again
    asks again."""

    def __init__(
        self, fetch: Callable[[str | None], P], items: Callable[[P], Sequence[T]], cursor: str | None = None
    ) -> None:
        self._fetch = fetch
        self._items = items
        self._cursor = cursor

    def page(self) -> P:
        """The first page alone, with what it says besides its items, such as `total`."""
        return self._fetch(self._cursor)

    def pages(self) -> Iterator[P]:
        """Page by page."""
        cursor = self._cursor
        while True:
            page = self._fetch(cursor)
            yield page
            if page.next_cursor is None:
                return
            if page.next_cursor == cursor:
                raise InvalidAnswer("The list goes in circles: a page names itself as the next.")
            cursor = page.next_cursor

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from self._items(page)
