"""The index of restore points in Redis: a hash of each session's, by id.

It is a copy of the sidecars in the store. Retention bounds it: each point that is made removes those that are too many.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import cast

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.paging import Page, page_of
from app.core.restore_points.names import parse


@dataclass(frozen=True, kw_only=True)
class RestorePoint:
    """One restore point of a session's files, which were read from `created_at` to `read_until`. These, `verified_at`
    (when its data was last read back, 0 for never) and `proven_at` (when a drill restored it and found each file as it
    was, 0 for never) are seconds since the epoch. `size` is the bytes of its `files`, `stored` those that it added to
    the store. `trigger` is `sleep`, `interval`, `archive`, `rollback` or `api`; `message_id` names the last prompt that
    had ended. `fingerprint` is of the files, as the engine compares them. It lacks `unreadable` files, which could not
    be read. Of a `broken` one data is missing.
    """

    id: str
    uuid: str
    created_at: float
    read_until: float = 0.0
    trigger: str
    files: int
    size: int
    stored: int
    message_id: str = ""
    verified_at: float = 0.0
    proven_at: float = 0.0
    fingerprint: str = ""
    unreadable: int = 0
    broken: bool = False

    def to_text(self) -> str:
        """As Redis holds it."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> RestorePoint:
        """The point in such a text; fields of later releases are ignored."""
        zeros = {"files": 0, "size": 0, "stored": 0}
        told = zeros | json.loads(text)
        return cls(**{each.name: told[each.name] for each in fields(cls) if each.name in told})


class RestorePoints:
    """The index. Needs a client with `decode_responses=True`; every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    @redis_errors
    def of(self, uuid: str) -> list[RestorePoint]:
        """The session's points, newest first."""
        texts = cast("list[str]", self._redis.hvals(keys.POINTS.format(uuid=uuid)))
        return sorted(map(RestorePoint.from_text, texts), key=_place, reverse=True)

    def page(self, uuid: str, *, limit: int = 100, cursor: str | None = None) -> Page[RestorePoint]:
        """The session's points, newest first; raises `InvalidRequest` for a foreign cursor."""
        return page_of(self.of(uuid), _place, limit=limit, cursor=cursor)

    @redis_errors
    def get(self, uuid: str, point_id: str) -> RestorePoint | None:
        """One of the session's points."""
        text = cast("str | None", self._redis.hget(keys.POINTS.format(uuid=uuid), point_id))
        return RestorePoint.from_text(text) if text else None

    def newest_before(self, uuid: str, when: float) -> RestorePoint | None:
        """The newest point from before this time (seconds since the epoch) that is not broken: all its files are."""
        whole = (each for each in self.of(uuid) if not each.broken)
        return next((each for each in whole if max(each.created_at, each.read_until) < when), None)

    def newest(self, uuid: str) -> RestorePoint | None:
        """The newest point that is not broken."""
        return self.newest_before(uuid, math.inf)

    @redis_errors
    def needed(self, uuid: str, *also: str) -> list[str]:
        """The ids of the session's points that sessions are being restored from, and `also` these; none may go."""
        sources = cast("list[str]", self._redis.hvals(keys.IN_USE))
        named = [found[1] for each in sources if (found := parse(each)) and found[0] == uuid]
        return sorted({*named, *also} - {""})

    @redis_errors
    def needed_elsewhere(self, uuid: str) -> bool:
        """Whether another session is being restored from one of the session's points."""
        sources = cast("dict[str, str]", self._redis.hgetall(keys.IN_USE))
        return any((found := parse(source)) and found[0] == uuid != user for user, source in sources.items())

    @redis_errors
    def end(self, uuid: str, now: float) -> None:
        """Note that the session's stored points are to be deleted."""
        self._redis.zadd(keys.POINTS_ENDING, {uuid: now}, nx=True)

    @redis_errors
    def ending(self) -> list[str]:
        """The sessions whose stored points are still to be deleted, those first that wait longest."""
        return cast("list[str]", self._redis.zrange(keys.POINTS_ENDING, 0, -1))

    @redis_errors
    def ended(self, uuid: str) -> None:
        """Note that the session's points are deleted."""
        self._redis.zrem(keys.POINTS_ENDING, uuid)

    @redis_errors
    def put(self, uuid: str, points: Iterable[RestorePoint], forgotten: Sequence[str] = ()) -> None:
        """Add these points, or replace them, and drop the `forgotten` ones."""
        mapping = {each.id: each.to_text() for each in points}
        key = keys.POINTS.format(uuid=uuid)
        with self._redis.pipeline(transaction=True) as change:
            if mapping:
                change.hset(key, mapping=mapping)
            if forgotten:
                change.hdel(key, *forgotten)
            change.execute()

    def mark_verified(self, uuid: str, at: float, broken: Sequence[str]) -> None:
        """Note that all stored data was read back, and which points lack some of it."""
        self.put(
            uuid,
            (
                replace(each, broken=True) if each.id in broken else replace(each, verified_at=at)
                for each in self.of(uuid)
                if not each.broken
            ),
        )

    def mark_proven(self, uuid: str, point_id: str, at: float) -> None:
        """Note that the point was restored, and every file was as it should be."""
        self.put(uuid, (replace(each, proven_at=at) for each in self.of(uuid) if each.id == point_id))

    def keep_only(self, uuid: str, point_id: str) -> None:
        """Leave one point in the index, and of that what is shown: the store has all of them."""
        points = self.of(uuid)
        kept = [replace(each, fingerprint="") for each in points if each.id == point_id]
        self.put(uuid, kept, [each.id for each in points if each.id != point_id])

    def mark_broken(self, uuid: str, point_ids: Sequence[str]) -> None:
        """Note that data of these points is missing."""
        self.put(uuid, (replace(each, broken=True) for each in self.of(uuid) if each.id in point_ids))


def _place(point: RestorePoint) -> tuple[float, str]:
    return point.created_at, point.id
