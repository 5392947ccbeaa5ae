"""Lists of sessions: by user and state from the indexes, by labels and search from the records on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import redis

from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.paging import Page, Source, filtered, members_of, these
from app.core.sessions.model import Record, Status, Tier
from app.core.sessions.store import SessionStore

SCANNED = 2_000
"""Sessions compared for one page at most: about 50 ms. A longer search goes on with the next page."""

COMPARED = ("user_id", "labels", "status", "archived_at")
"""The fields that `Filter.matches` needs."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which sessions to list: of a user, in a state, of a tier, with all of these `labels` (names and values), and with
    `search` as a part of the uuid, the user id or a label's value, in any case. Terminated ones only by their state.
    """

    user_id: str | None = None
    status: Status | None = None
    tier: Tier | None = None
    labels: Sequence[tuple[str, str]] = ()
    search: str = ""

    @property
    def compares(self) -> bool:
        """Whether no index is enough."""
        by_tier = self.tier is Tier.HOT or (self.tier is Tier.ARCHIVED and self.status is not None)
        return bool(self.labels or self.search or by_tier)

    def matches(self, uuid: str, user_id: str, labels: Mapping[str, str], status: str, tier: Tier) -> bool:
        """Whether a session is in the state, of the tier, has these labels and is found by the search."""
        if self.status not in (None, status) or self.tier not in (None, tier):
            return False
        if any(labels.get(name) != value for name, value in self.labels):
            return False
        part = self.search.casefold()
        return any(part in text.casefold() for text in (uuid, user_id, *labels.values()))


class SessionList:
    """Pages of sessions, newest first. Raises `StateUnavailable`, and `InvalidRequest` for a foreign cursor."""

    def __init__(self, client: redis.Redis, store: SessionStore) -> None:
        self._redis = client
        self._store = store

    @redis_errors
    def page(self, wanted: Filter, *, limit: int, cursor: str | None) -> Page[Record]:
        """The records, without those that have just gone. `total` counts those of the user and state, or of the user
        that are archived. If more is asked for, at most `SCANNED` of these are compared: the page may have fewer than
        `limit`, or none, and go on."""
        source, total = self._source(wanted)
        found, following = filtered(
            source,
            (lambda uuids: self._matching(wanted, uuids)) if wanted.compares else set,
            limit=limit,
            cursor=cursor,
            most=SCANNED if wanted.compares else limit,
        )
        return Page(total, self._store.find(found), following)

    def _source(self, wanted: Filter) -> tuple[Source, int]:
        """The sessions that `page` counts, and how many they are."""
        index = _index(wanted)
        if wanted.user_id is not None and index not in _of_user(wanted.user_id):
            own = keys.BY_USER.format(user_id=wanted.user_id)
            both = self._redis.zinter([own, index], aggregate="MIN", withscores=True)
            return these((score, uuid) for uuid, score in both), len(both)
        return members_of(self._redis, index), self._redis.zcard(index)

    def _matching(self, wanted: Filter, uuids: Sequence[str]) -> set[str]:
        """Those of the sessions that match."""
        pipe = self._redis.pipeline(transaction=False)
        for uuid in uuids:
            pipe.hmget(keys.SESSION.format(uuid=uuid), COMPARED)
        return {
            uuid
            for uuid, (user_id, labels, status, archived_at) in zip(uuids, pipe.execute(), strict=True)
            if user_id is not None
            and wanted.matches(
                uuid, user_id, json.loads(labels or "{}"), status, Tier.ARCHIVED if archived_at else Tier.HOT
            )
        }


def _index(wanted: Filter) -> str:
    """The index of those that are archived, in a state, of a user, or of all. The first leaves least."""
    if wanted.tier is Tier.ARCHIVED:
        return keys.ARCHIVED
    if wanted.user_id is not None and wanted.status in (None, Status.TERMINATED):
        living, gone = _of_user(wanted.user_id)
        return gone if wanted.status else living
    return keys.BY_STATUS.format(status=wanted.status) if wanted.status else keys.ALL


def _of_user(user_id: str) -> tuple[str, str]:
    """The indexes of a user's sessions: the living ones, and the terminated ones."""
    return keys.BY_USER.format(user_id=user_id), keys.USER_TOMBSTONES.format(user_id=user_id)
