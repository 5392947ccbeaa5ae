"""The sessions' records in Redis: every change of several keys is one Lua script.

The scripts maintain the indexes `sessions:status:*`, `user:*:sessions` and `sessions:all`, so that counts, lists,
quotas and sweeps never scan. Every method raises `StateUnavailable`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis
from redis.client import Pipeline

from app.core.errors import BackupNotFound, KeyReused, QuotaExceeded, SessionNotFound, StoreFull
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.events import EVENTS_BYTES
from app.core.redis.memory import RESERVE
from app.core.redis.paging import Page, newest_first, page_of
from app.core.redis.scripts import flatten, script
from app.core.sessions.change import Change, Changed, change_keys
from app.core.sessions.counted_time import Counted
from app.core.sessions.idle_policy import expiry_verdict
from app.core.sessions.model import Record, Status, encode, number


@dataclass(frozen=True)
class Call:
    """A call that creates one session, however often it is repeated. Its `token` and the `digest` of its request are
    kept for `kept` seconds."""

    token: str
    digest: str
    kept: float


class SessionStore:
    """Records, their indexes and deadlines. Times are seconds since the epoch. A session's events take at most
    `events_bytes`; no session is created while only the share `reserve` of Redis' memory is left."""

    def __init__(
        self,
        client: redis.Redis,
        tombstone_ttl: float = 86_400.0,
        events_bytes: int = EVENTS_BYTES,
        reserve: float = RESERVE,
    ) -> None:
        self._redis = client
        self._tombstone_ttl = int(tombstone_ttl)
        self._events_bytes = events_bytes
        self._reserve = reserve
        self._create = client.register_script(script("create"))
        self._change = client.register_script(script("change"))
        self._note_unarchived = client.register_script(script("unarchived"))
        self._backup_requested = client.register_script(script("backup_requested"))
        self._backup_settled = client.register_script(script("backup_settled"))

    def create(self, record: Record, *, quota: int | None, due: float = 0.0, call: Call | None = None) -> str:
        """Record a new session and answer its uuid, "" when that is taken; if the `call` has created a session before,
        the uuid of that. `due` is when its intent is overdue, 0 for a record without one. Raises `QuotaExceeded`,
        `KeyReused` for a call with another digest than before, `BackupNotFound` for a backup that is not in the index,
        and `StoreFull`. `quota` None is for a record that is recovered, which none of these refuse."""
        answer = self._run(
            self._create,
            [
                keys.SESSION.format(uuid=record.uuid),
                keys.EVENTS.format(uuid=record.uuid),
                keys.ALL,
                keys.BY_STATUS.format(status=record.status),
                keys.BY_USER.format(user_id=record.user_id),
                keys.INTENTS,
                keys.EXPIRY,
                keys.BACKUPS,
                keys.IN_USE,
                keys.CREATED.format(token=call.token) if call else "",
            ],
            [
                record.uuid,
                -1 if quota is None else quota,
                number(record.created_at),
                number(due),
                number(expiry_verdict(record, Counted(record.last_activity)).next_check),
                "state",
                json.dumps({"status": record.status}),
                call.digest if call else "",
                max(1, int(call.kept)) if call else 0,
                self._reserve,
                *flatten(record.to_hash()),
            ],
        )
        if answer == "gone":
            raise BackupNotFound(record.restore_from)
        if answer == "no_room":
            raise StoreFull
        if answer == "quota":
            raise QuotaExceeded(f"User {record.user_id} has reached the limit of {quota} sessions; delete one first.")
        if answer == "reused":
            raise KeyReused("This Idempotency-Key was used to create another session; choose a new key.")
        return "" if answer == "exists" else answer

    def get(self, uuid: str) -> Record:
        """The record; raises `SessionNotFound`."""
        for record in self.find([uuid]):
            return record
        raise SessionNotFound(uuid)

    def find(self, uuids: Iterable[str]) -> list[Record]:
        """The records of these sessions, in their order, without those that do not exist."""
        with redis_errors():
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

    def apply(self, uuid: str, now: float, change: Change) -> Changed:
        """Make a change, all of it or nothing. Raises `SessionNotFound`, `IllegalState`, or `Superseded` where an
        expected field has another value."""
        answer = self._run(self._change, change_keys(uuid), [self.request(uuid, now, change)])
        return Changed.from_answer(uuid, change.to, answer)

    def request(self, uuid: str, now: float, change: Change) -> str:
        """A change for scripts that make it as part of something larger."""
        return change.to_json(uuid, now, events_bytes=self._events_bytes, tombstone_ttl=self._tombstone_ttl)

    def page(self, *, status: Status | None, user_id: str | None, limit: int, cursor: str | None) -> Page[Record]:
        """Sessions, newest first, of a user, in a state, or all; terminated ones only when that state is asked for.
        Raises `InvalidRequest` for a foreign cursor."""
        if user_id is not None:
            name = keys.USER_TOMBSTONES if status is Status.TERMINATED else keys.BY_USER
            index = name.format(user_id=user_id)
        else:
            index = keys.BY_STATUS.format(status=status) if status else keys.ALL
        with redis_errors():
            if user_id is not None and status not in (None, Status.TERMINATED):
                own = [record for record in self.find(self._redis.zrange(index, 0, -1)) if record.status is status]
                return page_of(own, lambda record: (record.created_at, record.uuid), limit=limit, cursor=cursor)
            return newest_first(self._redis, index, limit=limit, cursor=cursor).map(self.find)

    def due(self, deadlines: str, now: float, limit: int = 100) -> list[Record]:
        """The sessions whose deadline in the sorted set `deadlines` has come, oldest first. Members without a record
        are removed from the set."""
        return self._between(deadlines, "-inf", now, limit)

    def due_after(self, deadlines: str, when: float, limit: int = 100) -> list[Record]:
        """The sessions whose deadline comes after `when`."""
        return self._between(deadlines, f"({when}", "+inf", limit)

    def _between(self, deadlines: str, first: str, last: str | float, limit: int) -> list[Record]:
        with redis_errors():
            uuids = self._redis.zrangebyscore(deadlines, first, last, start=0, num=limit)
            records = self.find(uuids)
            lost = set(uuids) - {record.uuid for record in records}
            if lost:
                self._redis.zrem(deadlines, *lost)
        return records

    def defer(self, deadlines: str, uuid: str, when: float) -> None:
        """Move this session's deadline to `when`, 0 for never; a session without that deadline gets none."""
        with redis_errors():
            if when:
                self._redis.zadd(deadlines, {uuid: when}, xx=True)
            else:
                self._redis.zrem(deadlines, uuid)

    def note_unarchived(self, uuid: str, note: Mapping[str, Any]) -> None:
        """Note since when, and why, the stored conversation is behind; {} when it is complete."""
        self._run(self._note_unarchived, [keys.SESSION.format(uuid=uuid)], list(encode({"unarchived": note}).values()))

    def request_backup(self, uuid: str, due: float) -> None:
        """Note a request for a backup, overdue at `due`; a backup that has already begun does not settle it."""
        self._run(self._backup_requested, [keys.SESSION.format(uuid=uuid), keys.BACKUP_REQUESTS], [uuid, number(due)])

    def settle_backup(self, uuid: str, asked: int) -> bool:
        """Note that the requests up to number `asked` are carried out; False when there is a newer one."""
        arguments = [uuid, asked]
        return bool(self._run(self._backup_settled, [keys.SESSION.format(uuid=uuid), keys.BACKUP_REQUESTS], arguments))

    def uuids(self, statuses: Iterable[Status]) -> list[str]:
        """All sessions in these states."""
        with redis_errors():
            return [
                uuid for status in statuses for uuid in self._redis.zrange(keys.BY_STATUS.format(status=status), 0, -1)
            ]

    def metered(self) -> list[Record]:
        """The sessions whose processes run, as far as the cost ledger knows."""
        with redis_errors():
            return self.find(self._redis.zrange(keys.RUNNING, 0, -1))

    def first_sight(self, now: float) -> bool:
        """True once for each Redis without the service's data, new or after a loss."""
        with redis_errors():
            return bool(self._redis.set(keys.SENTINEL, number(now), nx=True))

    def remembers_since(self) -> float:
        """Since when this Redis has lost nothing, infinity if unknown."""
        with redis_errors():
            return float(self._redis.get(keys.SENTINEL) or "inf")

    def forget_tombstones(self, now: float) -> int:
        """Remove the terminated sessions whose records have expired from the index; answers how many."""
        with redis_errors():
            index = keys.BY_STATUS.format(status=Status.TERMINATED)
            return int(self._redis.zremrangebyscore(index, "-inf", now - self._tombstone_ttl))

    def counts(self) -> dict[Status, int]:
        """How many sessions are in each state."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for status in Status:
                pipe.zcard(keys.BY_STATUS.format(status=status))
            return dict(zip(Status, pipe.execute(), strict=True))

    def _run(self, script: Any, names: list[str], arguments: list[Any]) -> Any:
        with redis_errors():
            return script(keys=names, args=arguments)


def ask(pipe: Pipeline, uuid: str) -> None:
    """Read the two hashes of a session for `Record.from_hash`. Not in a transaction, which a full Redis refuses: with a
    change in between, the hash of use may be slightly old, as in any record read a moment ago."""
    pipe.hgetall(keys.SESSION.format(uuid=uuid))
    pipe.hgetall(keys.USE.format(uuid=uuid))
