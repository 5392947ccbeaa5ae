"""Erasures: of what is left of a terminated session, and of what names its user.

A session that is deleted with `erase` is put into the set `sessions:erasures` by the script that terminates it, one
that was terminated before by a request. The worker that carries an erasure out (workers/erasing.py) takes it out of the
set last. From the request on nothing can be restored from the session.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import redis

from app.core.costs.usage import day_number, months_between
from app.core.errors import IllegalState
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.scripts import Script
from app.core.sessions.change import source_in_use
from app.core.sessions.model import number

LEDGER_DAYS = 460
"""Days back to the oldest month of the cost ledger (app/core/redis/lua/ledger.lua)."""

TOMBSTONE = (
    *("uuid", "user_id", "created_at", "status", "size", "made_by", "generation", "settled", "requested_at"),
    *("last_activity", "delete_backup", "delete_erase"),
)
"""What a tombstone keeps."""

SESSION_KEYS = (
    *(keys.USE, keys.RESOURCES, keys.INBOX, keys.HELD, keys.PROMPTS, keys.ANSWERED, keys.AGENT, keys.TOKENS),
    *(keys.DISCONNECT_TRIES, keys.POINTS, keys.SESSION_BACKUPS, keys.UNDONE),
)
SETS = (
    *(keys.INBOX_PENDING, keys.BACKUP_REQUESTS, keys.DISCONNECTS, keys.OPENINGS),
    *(keys.POINT_REQUESTS, keys.POINTS_WAITING, keys.POINTS_DUE),
)

AT_ONCE = 500


class Erasures:
    """Times are seconds since the epoch. Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._erase = Script(client, "erase")
        self._erased = Script(client, "erased")

    @redis_errors
    def request(self, uuid: str, due: float) -> None:
        """Request an erasure, overdue at `due`. Raises `IllegalState` for a session that is not terminated, and
        `BackupInUse` while another session is being restored from this one."""
        session = keys.SESSION.format(uuid=uuid)
        answer, backup = self._erase(
            session=session, erasures=keys.ERASURES, in_use=keys.IN_USE, uuid=uuid, due=number(due)
        )
        if answer == "living":
            raise IllegalState(f"Session {uuid} exists again; delete it.")
        if answer == "in_use":
            raise source_in_use(uuid, backup)

    @redis_errors
    def pending(self, uuid: str) -> bool:
        """Whether an erasure is requested and not carried out."""
        return self._redis.zscore(keys.ERASURES, uuid) is not None

    @redis_errors
    def due(self, now: float, limit: int = 100) -> list[str]:
        """The sessions whose erasure is overdue."""
        return list(self._redis.zrangebyscore(keys.ERASURES, "-inf", now, start=0, num=limit))

    @redis_errors
    def defer(self, uuid: str, when: float) -> None:
        """Move the time at which an erasure is overdue."""
        self._redis.zadd(keys.ERASURES, {uuid: when}, xx=True)

    @redis_errors
    def drop(self, uuid: str) -> None:
        """Give an erasure up: the session exists again."""
        self._redis.zrem(keys.ERASURES, uuid)

    @redis_errors
    def finish(self, uuid: str, pseudonym: str, now: float) -> None:
        """Remove what Redis has of the session, but for its tombstone and the cost ledger, which keep the pseudonym for
        the user, and no labels. The erasure is carried out then."""
        today = day_number(now)
        # Their names are in keys that the script removes.
        for some in self._texts(uuid):
            self._redis.unlink(*some)
        self._erased(
            session=keys.SESSION.format(uuid=uuid),
            erasures=keys.ERASURES,
            events=keys.EVENTS.format(uuid=uuid),
            uuid=uuid,
            pseudonym=pseudonym,
            months=json.dumps(months_between(today - LEDGER_DAYS, today)),
            keep=json.dumps(TOMBSTONE),
            unlink=json.dumps([each.format(uuid=uuid) for each in SESSION_KEYS]),
            leave=json.dumps(SETS),
        )

    def _texts(self, uuid: str) -> Iterator[Sequence[str]]:
        """The keys of the session's prompts and of answers kept for repeated calls, some at a time."""
        answered = self._redis.zrange(keys.ANSWERED.format(uuid=uuid), 0, -1)
        ids = [each.rpartition(" ")[2] for each in answered]
        ids += self._redis.lrange(keys.PROMPTS.format(uuid=uuid), 0, -1)
        names = [keys.PROMPT.format(uuid=uuid, id=each) for each in ids]
        kept = keys.NAMING_ANSWERS.format(uuid=uuid)
        names += [*self._redis.zrange(kept, 0, -1), kept]
        for first in range(0, len(names), AT_ONCE):
            yield names[first : first + AT_ONCE]


def pseudonym_of(uuid: str) -> str:
    """What stands for the user of an erased session: it names the session and tells nothing of the user."""
    return f"erased-{uuid}"
