"""Cursor pages over a sorted set, newest first. A cursor names the last member seen, so that members added or removed
between two pages neither repeat nor hide others."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import redis

from app.core.errors import InvalidRequest

FOREIGN = "`cursor` is not one of this service; start again without it."

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


def newest_first(client: redis.Redis, index: str, *, limit: int, cursor: str | None) -> Page[str]:
    """Members of the sorted set `index`, highest score first; raises `InvalidRequest` for a foreign cursor."""
    after = _decode(cursor) if cursor else None
    highest = "+inf" if after is None else repr(after[0])
    found: list[Place] = []
    offset = 0
    while len(found) <= limit:
        chunk = client.zrevrangebyscore(index, highest, "-inf", start=offset, num=limit + 1, withscores=True)
        found += [(score, member) for member, score in chunk if after is None or (score, member) < after]
        offset += len(chunk)
        if len(chunk) <= limit:
            break
    next_cursor = _encode(found[limit - 1]) if len(found) > limit else None
    return Page(client.zcard(index), [member for _, member in found[:limit]], next_cursor)


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
