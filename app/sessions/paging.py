"""Cursor pages over a sorted set, newest first. A cursor names the last member seen, so that members
added or removed between two pages neither repeat nor hide others."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import redis

from app.sessions.errors import InvalidRequest

FOREIGN = "The cursor is not one this service gave; start again without it."

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Page(Generic[T]):
    """Some of `total` items; `next_cursor` is None on the last page."""

    total: int
    items: list[T]
    next_cursor: str | None

    def map(self, change: Callable[[list[T]], list[U]]) -> Page[U]:
        """The same page with other items."""
        return Page(self.total, change(self.items), self.next_cursor)


def newest_first(client: redis.Redis, index: str, *, limit: int, cursor: str | None) -> Page[str]:
    """Members of the sorted set `index`, highest score first, after `cursor`. Raises `InvalidRequest`
    for a cursor that was not made here."""
    after = _decode(cursor) if cursor else None
    highest = "+inf" if after is None else repr(after[0])
    found: list[tuple[float, str]] = []
    offset = 0
    while len(found) <= limit:
        chunk = client.zrevrangebyscore(index, highest, "-inf", start=offset, num=limit + 1, withscores=True)
        found += [(score, member) for member, score in chunk if after is None or (score, member) < after]
        offset += len(chunk)
        if len(chunk) <= limit:
            break
    shown = found[:limit]
    next_cursor = _encode(shown[-1]) if len(found) > limit else None
    return Page(client.zcard(index), [member for _, member in shown], next_cursor)


def _encode(place: tuple[float, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[float, str]:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        score, member = json.loads(raw)
        place = float(score), str(member)
    except (binascii.Error, ValueError, TypeError) as error:
        raise InvalidRequest(FOREIGN) from error
    if not math.isfinite(place[0]):
        raise InvalidRequest(FOREIGN)
    return place
