"""Cursor pages over a sorted set, newest first. A cursor names the last member seen, so that members added or removed
between two pages neither repeat nor hide others."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import redis

from app.core.errors import InvalidRequest

FOREIGN = "`cursor` is not one of this service; start again without it."

CHUNK = 500
"""Members read and compared at a time."""

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some of `total` items; `next_cursor` is None on the last page."""

    total: int
    items: list[T]
    next_cursor: str | None

    def map(self, change: Callable[[list[T]], list[U]]) -> Page[U]:
        """The page with its items replaced."""
        return Page(self.total, change(self.items), self.next_cursor)


Place = tuple[float, str]
"""A member's place: its score, then its name."""


Source = Callable[[Place | None, int], list[Place]]
"""Members, highest place first: so many of those after a place, or of all, and fewer only at the end."""


def newest_first(client: redis.Redis, index: str, *, limit: int, cursor: str | None) -> Page[str]:
    """Members of the sorted set `index`, highest score first; raises `InvalidRequest` for a foreign cursor."""
    found = members_of(client, index)(_decode(cursor) if cursor else None, limit + 1)
    next_cursor = _encode(found[limit - 1]) if len(found) > limit else None
    return Page(client.zcard(index), [member for _, member in found[:limit]], next_cursor)


def filtered(
    source: Source, matching: Callable[[list[str]], Collection[str]], *, limit: int, cursor: str | None, most: int
) -> tuple[list[str], str | None]:
    """The members that `matching` leaves of those it is asked about, and the next cursor; raises as `newest_first`. It
    is asked about at most `most`, so there may be fewer than `limit`, or none, before the last page."""
    place = _decode(cursor) if cursor else None
    found: list[Place] = []
    asked, more = 0, True
    while more and asked < most and len(found) < limit:
        size = min(CHUNK, most - asked)
        chunk = source(place, size + 1)
        more, chunk = len(chunk) > size, chunk[:size]
        left = matching([member for _, member in chunk])
        found += [each for each in chunk if each[1] in left]
        asked += len(chunk)
        place = chunk[-1] if chunk else place
    if len(found) > limit:
        more, place = True, found[limit - 1]
    return [member for _, member in found[:limit]], _encode(place) if more and place else None


def members_of(client: redis.Redis, index: str) -> Source:
    """The members of a sorted set."""

    def read(after: Place | None, count: int) -> list[Place]:
        highest = "+inf" if after is None else repr(after[0])
        found: list[Place] = []
        offset = 0
        while len(found) < count:
            chunk = client.zrevrangebyscore(index, highest, "-inf", start=offset, num=count, withscores=True)
            found += [(score, member) for member, score in chunk if after is None or (score, member) < after]
            offset += len(chunk)
            if len(chunk) < count:
                break
        return found[:count]

    return read


def these(places: Iterable[Place]) -> Source:
    """Members in memory."""
    ordered = sorted(places, reverse=True)

    def read(after: Place | None, count: int) -> list[Place]:
        rest = (each for each in ordered if after is None or each < after)
        return list(islice(rest, count))

    return read


def page_of(items: Iterable[T], place: Callable[[T], Place], *, limit: int, cursor: str | None) -> Page[T]:
    """A page of items in memory, such as a filtered list."""
    after = _decode(cursor) if cursor else None
    ordered = sorted(items, key=place, reverse=True)
    rest = [item for item in ordered if after is None or place(item) < after]
    next_cursor = _encode(place(rest[limit - 1])) if len(rest) > limit else None
    return Page(len(ordered), rest[:limit], next_cursor)


def _encode(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _decode(cursor: str) -> Place:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        score, member = json.loads(raw)
        place = float(score), str(member)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidRequest(FOREIGN) from error
    if not math.isfinite(place[0]):
        raise InvalidRequest(FOREIGN)
    return place
