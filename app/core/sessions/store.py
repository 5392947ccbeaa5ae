"""The sessions' records in Redis: every change of several keys is one Lua script.

The scripts maintain the indexes `sessions:status:*`, `user:*:sessions` and `sessions:all`, so that counts, lists,
quotas and sweeps never scan. Every method raises `StateUnavailable`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.client import Pipeline

from app.core.errors import BackupNotFound, KeyReused, SessionNotFound, StoreFull
from app.core.limit_errors import Owner, QuotaExceeded
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.memory import RESERVE
from app.core.redis.scripts import Script, flatten
from app.core.sessions.change import TOMBSTONE_TTL, Change, Changed, change_keys
from app.core.sessions.counted_time import Counted
from app.core.sessions.idle_policy import expiry_verdict
from app.core.sessions.model import Record, Status, encode, number
from app.core.sessions.reported_services import ReportedService

REQUESTS_LOOKED_AT = 500
"""Requests for a backup of which the oldest is looked for."""

POINT_SETS = (keys.POINT_REQUESTS, keys.POINTS_WAITING, keys.POINTS_DUE, keys.DRILLS, keys.DRILL_REQUESTS)
"""Where sessions are due for restore points and drills."""


@dataclass(frozen=True)
class Call:
    """A call that creates one session, however often it is repeated. Its `token` and the `digest` of its request are
    kept for `kept` seconds."""

    token: str
    digest: str
    kept: int


class SessionStore:
    """Records, their indexes and deadlines. Times are seconds since the epoch. No session is created while only the
    reserve of Redis' memory is left."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._create = Script(client, "create")
        self._change = Script(client, "change")
        self._note = Script(client, "noted")
        self._backup_requested = Script(client, "backup_requested")
        self._backup_settled = Script(client, "backup_settled")
        self._point_requested = Script(client, "point_requested")
        self._point_settled = Script(client, "point_settled")

    @redis_errors
    def create(self, record: Record, *, quota: int | None, due: float = 0.0, call: Call | None = None) -> str:
        """Record a new session and answer its uuid, "" when that is taken; if the `call` has created a session before,
        the uuid of that. `due` is when its intent is overdue, 0 for a record without one. Raises `QuotaExceeded`,
        `KeyReused` for a call with another digest than before, `BackupNotFound` for a backup that is not in the index,
        and `StoreFull`. `quota` None is for a record that is recovered, which none of these refuse."""
        answer = self._create(
            session=_session(record.uuid),
            events=keys.EVENTS.format(uuid=record.uuid),
            all=keys.ALL,
            of_status=keys.BY_STATUS.format(status=record.status),
            user_sessions=keys.BY_USER.format(user_id=record.user_id),
            intents=keys.INTENTS,
            expiry=keys.EXPIRY,
            backups=keys.BACKUPS,
            in_use=keys.IN_USE,
            created_by_call=keys.CREATED.format(token=call.token) if call else "",
            uuid=record.uuid,
            quota=-1 if quota is None else quota,
            created_at=number(record.created_at),
            due=number(due),
            expires_at=number(expiry_verdict(record, Counted(record.last_activity), math.inf).next_check),
            event="state",
            data=json.dumps({"status": record.status}),
            digest=call.digest if call else "",
            call_kept=call.kept if call else 0,
            reserve=RESERVE,
            fields=flatten(record.to_hash()),
        )
        if answer == "gone":
            raise BackupNotFound(record.restore_from)
        if answer == "no_room":
            raise StoreFull
        if answer == "quota" and quota is not None:
            raise QuotaExceeded(Owner.USER, record.user_id, most=quota)
        if answer == "reused":
            raise KeyReused("This Idempotency-Key was used to create another session; choose a new key.")
        return "" if answer == "exists" else str(answer)

    def get(self, uuid: str) -> Record:
        """The record; raises `SessionNotFound`."""
        for record in self.find([uuid]):
            return record
        raise SessionNotFound(uuid)

    @redis_errors
    def find(self, uuids: Iterable[str]) -> list[Record]:
        """The records of these sessions, in their order, without those that do not exist."""
        pipe = self._redis.pipeline(transaction=False)
        for uuid in uuids:
            ask(pipe, uuid)
        answers = pipe.execute()
        return [
            Record.from_hash(hashed, noted) for hashed, noted in zip(answers[::2], answers[1::2], strict=True) if hashed
        ]

    def change(self, uuid: str, now: float, *, to: Status | None = None, **wanted: Any) -> Changed:
        """Make the change `Change.of(to=to, **wanted)`; raises as `apply`."""
        return self.apply(uuid, now, Change.of(to=to, **wanted))

    @redis_errors
    def apply(self, uuid: str, now: float, change: Change) -> Changed:
        """Make a change, all of it or nothing. Raises `SessionNotFound`, `IllegalState`, or `Superseded` where an
        expected field has another value."""
        answer = self._change(**change_keys(uuid), request=change.to_json(uuid, now))
        return Changed.from_answer(uuid, change.to, answer)

    def due(self, deadlines: str, now: float, limit: int = 100) -> list[Record]:
        """The sessions whose deadline in the sorted set `deadlines` has come, oldest first. Members without a record
        are removed from the set."""
        return self._between(deadlines, "-inf", now, limit)

    def due_after(self, deadlines: str, when: float, limit: int = 100) -> list[Record]:
        """The sessions whose deadline comes after `when`."""
        return self._between(deadlines, f"({when}", "+inf", limit)

    @redis_errors
    def _between(self, deadlines: str, first: str, last: str | float, limit: int) -> list[Record]:
        uuids = self._redis.zrangebyscore(deadlines, first, last, start=0, num=limit)
        records = self.find(uuids)
        lost = set(uuids) - {record.uuid for record in records}
        if lost:
            self._redis.zrem(deadlines, *lost)
        return records

    @redis_errors
    def defer(self, deadlines: str, uuid: str, when: float) -> None:
        """Move this session's deadline to `when`, 0 for never; a session without that deadline gets none."""
        if when:
            self._redis.zadd(deadlines, {uuid: when}, xx=True)
        else:
            self._redis.zrem(deadlines, uuid)

    @redis_errors
    def note_unarchived(self, uuid: str, note: Mapping[str, Any]) -> None:
        """Note since when, and why, the stored conversation is behind; {} when it is complete."""
        self._note_field(uuid, "unarchived", note)

    @redis_errors
    def note_services(self, uuid: str, services: Sequence[ReportedService]) -> None:
        """Note what the workspace's agent reports of its services."""
        self._note_field(uuid, "services", services)

    def _note_field(self, uuid: str, name: str, value: Any) -> None:
        """Note a field of the record in the hash of its use."""
        self._note(session=_session(uuid), field=name, text=encode({name: value})[name])

    @redis_errors
    def request_backup(self, uuid: str, now: float, due: float) -> int:
        """Note a request for a backup, overdue at `due`; a backup that has already begun does not settle it. Answers
        the request's number, 0 where there is no such session."""
        return int(self._backup_requested(**_backup_requests(uuid), due=number(due), now=number(now)))

    @redis_errors
    def oldest_backup_request(self, now: float) -> float:
        """How long (s) the requested backup that waits longest has waited, 0 for none. Of more requests than are looked
        at, those whose next attempt comes last are left out."""
        uuids = self._redis.zrange(keys.BACKUP_REQUESTS, 0, REQUESTS_LOOKED_AT - 1)
        pipe = self._redis.pipeline(transaction=False)
        for uuid in uuids:
            pipe.hget(keys.SESSION.format(uuid=uuid), "backup_waits")
        since = [float(each) for each in pipe.execute() if each]
        return max(0.0, now - min(since)) if since else 0.0

    @redis_errors
    def settle_backup(self, uuid: str, asked: int, now: float) -> bool:
        """Note that the requests up to number `asked` are carried out; False when there is a newer one."""
        return bool(self._backup_settled(**_backup_requests(uuid), asked=asked, now=number(now)))

    @redis_errors
    def request_point(self, uuid: str, now: float, due: float, trigger: str) -> bool:
        """Note a request for a restore point, overdue at `due`; a point that has already begun does not settle it.
        False for one of the service itself while another is pending."""
        noted = self._point_requested(**_point_requests(uuid), due=number(due), trigger=trigger, now=number(now))
        return bool(noted)

    @redis_errors
    def settle_point(self, uuid: str, asked: int) -> bool:
        """Note that the requests up to number `asked` are carried out; False when there is a newer one."""
        return bool(self._point_settled(**_point_requests(uuid), asked=asked))

    @redis_errors
    def size(self, deadlines: str) -> int:
        """How many sessions have this deadline."""
        return int(self._redis.zcard(deadlines))

    @redis_errors
    def oldest(self, deadlines: str, now: float) -> float:
        """Seconds since the first of these times, 0 for none."""
        first = self._redis.zrange(deadlines, 0, 0, withscores=True)
        return max(0.0, now - first[0][1]) if first else 0.0

    @redis_errors
    def pending(self, deadlines: str, uuid: str) -> bool:
        """Whether the session has this deadline."""
        return self._redis.zscore(deadlines, uuid) is not None

    @redis_errors
    def deadline(self, deadlines: str, uuid: str) -> float | None:
        """The session's deadline, None for none."""
        when = self._redis.zscore(deadlines, uuid)
        return None if when is None else float(when)

    @redis_errors
    def overdue(self, deadlines: str, when: float) -> int:
        """How many sessions have a deadline before `when`."""
        return int(self._redis.zcount(deadlines, "-inf", f"({when}"))

    @redis_errors
    def schedule(self, deadlines: str, uuid: str, when: float) -> None:
        """Give the session a deadline at `when`, whatever it had."""
        self._redis.zadd(deadlines, {uuid: when})

    @redis_errors
    def schedule_missing(self, deadlines: str, uuids: Iterable[str], when: float) -> None:
        """Give those of the sessions that lack this deadline one at `when`."""
        mapping = dict.fromkeys(uuids, when)
        if mapping:
            self._redis.zadd(deadlines, mapping, nx=True)

    @redis_errors
    def clear(self, deadlines: str) -> None:
        """Remove these deadlines of all sessions."""
        self._redis.delete(deadlines)

    @redis_errors
    def look_earlier(self, deadlines: str, uuid: str, when: float) -> bool:
        """Give the session a deadline at `when`, unless it has an earlier one; whether it had none."""
        return bool(self._redis.zadd(deadlines, {uuid: when}, lt=True))

    def forget_points(self, uuid: str) -> None:
        """A deleted session is due for no restore point and no drill; those it has stay listed as long as its
        tombstone."""
        pipe = self._redis.pipeline(transaction=False)
        for each in POINT_SETS:
            pipe.zrem(each, uuid)
        pipe.expire(keys.POINTS.format(uuid=uuid), TOMBSTONE_TTL)
        pipe.execute()

    @redis_errors
    def uuids(self, statuses: Iterable[Status]) -> list[str]:
        """All sessions in these states."""
        return [uuid for status in statuses for uuid in self._redis.zrange(keys.BY_STATUS.format(status=status), 0, -1)]

    @redis_errors
    def archived(self) -> set[str]:
        """The sessions whose files are in the archive only."""
        return set(self._redis.zrange(keys.ARCHIVED, 0, -1))

    @redis_errors
    def metered(self) -> list[Record]:
        """The sessions whose processes run, as far as the cost ledger knows."""
        return self.find(self._redis.zrange(keys.RUNNING, 0, -1))

    @redis_errors
    def first_sight(self, now: float) -> bool:
        """True once for each Redis without the service's data, new or after a loss."""
        return bool(self._redis.set(keys.SENTINEL, number(now), nx=True))

    @redis_errors
    def remembers_since(self) -> float:
        """Since when this Redis has lost nothing, infinity if unknown."""
        return float(self._redis.get(keys.SENTINEL) or "inf")

    @redis_errors
    def forget_tombstones(self, now: float) -> int:
        """Remove the terminated sessions whose records have expired from the index; answers how many."""
        index = keys.BY_STATUS.format(status=Status.TERMINATED)
        return int(self._redis.zremrangebyscore(index, "-inf", now - TOMBSTONE_TTL))

    @redis_errors
    def counts(self) -> dict[Status, int]:
        """How many sessions are in each state."""
        pipe = self._redis.pipeline(transaction=False)
        for status in Status:
            pipe.zcard(keys.BY_STATUS.format(status=status))
        return dict(zip(Status, pipe.execute(), strict=True))


def ask(pipe: Pipeline, uuid: str) -> None:
    """Read the two hashes of a session for `Record.from_hash`. Not in a transaction, which a full Redis refuses: with a
    change in between, the hash of use may be slightly old, as in any record read a moment ago."""
    pipe.hgetall(keys.SESSION.format(uuid=uuid))
    pipe.hgetall(keys.USE.format(uuid=uuid))


def _session(uuid: str) -> str:
    return keys.SESSION.format(uuid=uuid)


def _backup_requests(uuid: str) -> dict[str, str]:
    """What the scripts on requested backups take of a session."""
    return {"session": _session(uuid), "requests": keys.BACKUP_REQUESTS, "uuid": uuid}


def _point_requests(uuid: str) -> dict[str, str]:
    """What the scripts on requested restore points take of a session."""
    names = {"requests": keys.POINT_REQUESTS, "waiting": keys.POINTS_WAITING}
    return {"session": _session(uuid), "uuid": uuid, **names}
