"""Taking passes back is an intent like any other: what was opened with them is ended for certain, if not at once.

`door` of a record counts how often all passes were taken back, `locked_door` is the one up to which the connections
made with them were ended. Where the two differ, `sessions:lockouts` says when to look again. A message that is lost, a
worker that is killed and an agent that is away delay it; a session that sleeps has no connections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import redis

from app.sessions import keys
from app.sessions.events import REVOKED
from app.sessions.model import Record, Status
from app.sessions.redis_errors import redis_errors
from app.sessions.store import Change, SessionStore, change_keys, change_of, script

FIRST_RETRY = 1.0
LONGEST_RETRY = 300.0
"""s between two tries, doubled from the first to the longest: an agent that died is there again a second later, and one
that is broken for good must not keep the couriers from the others."""

TRIES_KEPT = 86_400


class Lockouts:
    """What is owed to those who took passes back. Times are seconds since the epoch; every method raises
    `StateUnavailable`. A message that nobody has taken within `patience` (s) counts as lost."""

    def __init__(self, client: redis.Redis, store: SessionStore, patience: float) -> None:
        self._redis = client
        self._store = store
        self._patience = patience
        self._revoke = client.register_script(script("revoke"))
        self._done = client.register_script(script("locked_out"))

    def revoke(self, uuid: str, door: int, now: float) -> Change:
        """Take back all passes for the door and those before, and owe the end of what they opened: one step, so that
        neither is without the other. Raises `SessionNotFound`, and `Superseded` when the door is another by now."""
        fields: Mapping[str, Any] = {"door": door + 1, "event": (REVOKED, {"door": door + 1})}
        request = self._store.request(uuid, now, expect={"door": door}, **fields)
        with redis_errors():
            answer = self._revoke(
                keys=[*change_keys(uuid), *_keys(uuid)], args=[request, uuid, now + self._patience, Status.SLEEPING]
            )
        return change_of(uuid, None, answer)

    def done(self, record: Record) -> bool:
        """Note that no connection is left that was made before this record's door; False when more passes were
        taken back since."""
        with redis_errors():
            own = keys.SESSION.format(uuid=record.uuid)
            return bool(self._done(keys=[own, *_keys(record.uuid)], args=[record.uuid, record.door]))

    def forget(self, uuid: str) -> None:
        """Owe nothing to a session that is no more."""
        with redis_errors():
            self._redis.zrem(keys.LOCKOUTS, uuid)

    def sent(self, uuid: str, now: float) -> None:
        """A message is on its way: look again when it may have been lost, later each time."""
        with redis_errors():
            pipe = self._redis.pipeline()
            pipe.incr(keys.LOCKOUT_TRIES.format(uuid=uuid))
            pipe.expire(keys.LOCKOUT_TRIES.format(uuid=uuid), TRIES_KEPT)
            tries = int(pipe.execute()[0])
        self._store.defer(keys.LOCKOUTS, uuid, now + max(self._patience, _pause(tries)))

    def failed(self, uuid: str, now: float) -> None:
        """It could not be done now: look again soon, and later each time."""
        with redis_errors():
            tries = int(self._redis.get(keys.LOCKOUT_TRIES.format(uuid=uuid)) or 0)
        self._store.defer(keys.LOCKOUTS, uuid, now + _pause(tries))


def owed(record: Record) -> bool:
    """Whether connections may be left that were made with passes taken back since."""
    return record.door > record.locked_door


def nobody_inside(record: Record) -> bool:
    """Whether nothing of the session runs, so that there are no connections to it."""
    asleep = record.status is Status.SLEEPING and record.settled >= record.generation
    return asleep or record.status is Status.TERMINATED


def _pause(tries: int) -> float:
    return min(FIRST_RETRY * 2.0 ** min(tries, 30), LONGEST_RETRY)


def _keys(uuid: str) -> list[str]:
    return [keys.LOCKOUTS, keys.LOCKOUT_TRIES.format(uuid=uuid)]
