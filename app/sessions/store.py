"""The sessions' records in Redis: every change that touches several keys is one Lua script beside this file.

`sessions:status:*`, `user:*:sessions` and `sessions:all` are indexes kept by those scripts, so that
counts, lists, quotas and sweeps never scan. Every method raises `StateUnavailable` when Redis
can't be reached or does not answer in time.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from app.sessions import keys
from app.sessions.clock import Counted
from app.sessions.errors import (
    BackupNotFound,
    IllegalState,
    KeyReused,
    QuotaExceeded,
    SessionNotFound,
    StoreFull,
    Superseded,
)
from app.sessions.events import EVENTS_BYTES, EVENTS_KEPT, EVENTS_KEPT_ASLEEP
from app.sessions.memory import RESERVE
from app.sessions.model import (
    CODECS,
    DEFAULTS,
    PHASE_PREFIX,
    SIGNAL_PREFIX,
    SIGNALS,
    Record,
    Signal,
    Status,
    encode,
    sources,
)
from app.sessions.paging import Page, newest_first, page_of
from app.sessions.redis_errors import redis_errors
from app.sessions.scripts import script
from app.sessions.verdict import expiry_verdict


@dataclass(frozen=True)
class Change:
    """What `SessionStore.change` did: `applied` is False when the session was that way already."""

    record: Record
    applied: bool


@dataclass(frozen=True)
class Call:
    """A call that makes one session, however often it is repeated: known by its `token` for `kept` seconds, together
    with the `digest` of what it wants."""

    token: str
    digest: str
    kept: float


class SessionStore:
    """Records, their indexes and deadlines. Times are seconds since the epoch. The events of a session take
    `events_bytes`; the last share `reserve` of Redis' memory is not for new sessions."""

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
        self._backup_requested = client.register_script(script("backup_requested"))
        self._backup_settled = client.register_script(script("backup_settled"))

    def create(self, record: Record, *, quota: int | None, due: float = 0.0, call: Call | None = None) -> str:
        """Record a new session and answer its uuid, "" when that is taken; where the `call` has made one before, the
        uuid of that. `quota` is how many its user may have, None for any number; `due` is when its intent is overdue,
        0 for a record with none. Raises `QuotaExceeded`, `KeyReused` for a call that wanted another before, and
        `BackupNotFound` where the backup it is to be restored from is not in the index, and `StoreFull`; one with no
        quota is a record given back, which is asked for neither."""
        flat = [text for pair in record.to_hash().items() for text in pair]
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
                *flat,
            ],
        )
        if answer == "gone":
            raise BackupNotFound(record.restore_from)
        if answer == "no_room":
            raise StoreFull
        if answer == "quota":
            raise QuotaExceeded(
                f"User {record.user_id} has {quota} sessions, as many as one may have; delete one first."
            )
        if answer == "reused":
            raise KeyReused("This Idempotency-Key made another session before.")
        return "" if answer == "exists" else answer

    def get(self, uuid: str) -> Record:
        """The record; raises `SessionNotFound`."""
        with redis_errors():
            hashed = self._redis.hgetall(keys.SESSION.format(uuid=uuid))
        if not hashed:
            raise SessionNotFound(uuid)
        return Record.from_hash(hashed)

    def find(self, uuids: Iterable[str]) -> list[Record]:
        """The records of these sessions, in their order; those that are gone are left out."""
        with redis_errors():
            pipe = self._redis.pipeline(transaction=False)
            for uuid in uuids:
                pipe.hgetall(keys.SESSION.format(uuid=uuid))
            return [Record.from_hash(hashed) for hashed in pipe.execute() if hashed]

    def change(self, uuid: str, now: float, *, to: Status | None = None, **wanted: Any) -> Change:
        """Change one session as `request` describes it, all of it or nothing. Raises `SessionNotFound`,
        `IllegalState`, or `Superseded` where something expected is otherwise."""
        request = self.request(uuid, now, to=to, **wanted)
        return change_of(uuid, to, self._run(self._change, change_keys(uuid), [request]))

    def request(
        self,
        uuid: str,
        now: float,
        *,
        to: Status | None = None,
        noop: Collection[Status] = (),
        expect: Mapping[str, Any] | None = None,
        task: str = "",
        due: float = 0.0,
        settle: bool = False,
        then: str = "",
        touch: bool = False,
        idle_at: float = 0.0,
        phases: Mapping[str, int] | None = None,
        signals: Mapping[str, Signal] | None = None,
        clear_phases: bool = False,
        next_epoch: bool = False,
        event: tuple[str, Mapping[str, Any]] | None = None,
        events_ttl: float = 0.0,
        **fields: Any,
    ) -> str:
        """What lua/change.lua is told of a change, here and by scripts that make one as part of something larger.

        `to` moves the session, by the transition table; one in `noop` is left as it is. `touch` notes that
        someone asked for it, in any case. `task` makes it a new intent: the generation grows and the intent is
        overdue at `due`. `settle` says the current intent is carried out, `then` which task goes on with it. `idle_at`
        is when to look next whether it is idle. `events_ttl` lets the session's events expire unless more come.
        `next_epoch` ends the workspace's token.
        `expect` are fields that must still have these values.
        """
        texts = encode(fields | ({"task": then} if then else {}))
        kept = {name: text for name, text in texts.items() if DEFAULTS.get(name) != text}
        kept |= {PHASE_PREFIX + name: str(ms) for name, ms in (phases or {}).items()}
        kept |= {SIGNAL_PREFIX + name: signal.to_text() for name, signal in (signals or {}).items()}
        event_type, event_data = event or (("state", {"status": to, **_shown(fields)}) if to else ("", {}))
        document = {
            "uuid": uuid,
            "now": number(now),
            "expect": _expected(expect or {}),
            "set": kept,
            "clear": [name for name in texts if name not in kept],
            "clear_prefix": PHASE_PREFIX if clear_phases else "",
            "to": to or "",
            "from": sorted(sources(to)) if to else [],
            "noop": sorted(noop),
            "task": task,
            "due": number(due),
            "settle": settle,
            "next_epoch": next_epoch,
            "touch": touch,
            "idle_at": number(idle_at),
            "status_key": keys.BY_STATUS.format(status=""),
            "backups_key": keys.BACKUPS,
            "in_use_key": keys.IN_USE,
            "user_key": keys.BY_USER.split("{", 1)[0],
            "event": {"type": event_type, "data": json.dumps(event_data)},
            "events_kept": EVENTS_KEPT_ASLEEP if events_ttl else EVENTS_KEPT,
            "events_bytes": self._events_bytes,
            "events_ttl": int(self._tombstone_ttl if to is Status.TERMINATED else events_ttl),
            "tombstone_ttl": self._tombstone_ttl,
        }
        return json.dumps(document)

    def page(self, *, status: Status | None, user_id: str | None, limit: int, cursor: str | None) -> Page[Record]:
        """Living sessions, newest first, of a user, in a state, or all; terminated ones when that state is
        asked for. Raises `InvalidRequest` for a cursor that isn't one of ours."""
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
        """The sessions whose deadline in the sorted set `deadlines` has come, the oldest first; members with
        no record are dropped from the set."""
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
        """Look at this session's deadline again at `when`, 0 for never; a session without that deadline gets none."""
        with redis_errors():
            if when:
                self._redis.zadd(deadlines, {uuid: when}, xx=True)
            else:
                self._redis.zrem(deadlines, uuid)

    def request_backup(self, uuid: str, due: float) -> None:
        """Note that a backup is wanted, overdue at `due`; one that has begun already does not settle it."""
        self._run(self._backup_requested, [keys.SESSION.format(uuid=uuid), keys.BACKUP_REQUESTS], [uuid, number(due)])

    def settle_backup(self, uuid: str, asked: int) -> bool:
        """Note that the requests for a backup up to number `asked` are carried out. False when there is a newer one."""
        arguments = [uuid, asked]
        return bool(self._run(self._backup_settled, [keys.SESSION.format(uuid=uuid), keys.BACKUP_REQUESTS], arguments))

    def backup_wanted(self, uuid: str) -> bool:
        with redis_errors():
            return self._redis.zscore(keys.BACKUP_REQUESTS, uuid) is not None

    def uuids(self, statuses: Iterable[Status]) -> list[str]:
        """All sessions in these states."""
        with redis_errors():
            return [
                uuid for status in statuses for uuid in self._redis.zrange(keys.BY_STATUS.format(status=status), 0, -1)
            ]

    def first_sight(self, now: float) -> bool:
        """True once for each Redis that has lost, or never had, the service's data."""
        with redis_errors():
            return bool(self._redis.set(keys.SENTINEL, number(now), nx=True))

    def remembers_since(self) -> float:
        """Since when at the latest nothing that was noted in this Redis was lost, infinity where that isn't known."""
        with redis_errors():
            return float(self._redis.get(keys.SENTINEL) or "inf")

    def forget_tombstones(self, now: float) -> int:
        """Drop from the index the terminated sessions whose records have expired; answers how many."""
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


def intent(to: Status, *, task: str, noop: Collection[Status], due: float, request_id: str) -> dict[str, Any]:
    """What every new intent changes of a session, as arguments of `SessionStore.change`."""
    return {
        "to": to,
        "task": task,
        "noop": noop,
        "due": due,
        "request_id": request_id,
        "clear_phases": True,
        "reason": "",
        "reason_code": "",
        "started_at": 0.0,
    }


def change_keys(uuid: str) -> list[str]:
    """The keys lua/change.lua works on, in its order."""
    own = [keys.SESSION.format(uuid=uuid), keys.EVENTS.format(uuid=uuid)]
    return [*own, keys.INTENTS, keys.IDLE, keys.EXPIRY, keys.ALL]


def change_of(uuid: str, to: Status | None, answer: Sequence[Any]) -> Change:
    """What lua/change.lua answered, as a change or as the error it stands for."""
    code, detail, flat = answer
    if code == "missing":
        raise SessionNotFound(uuid)
    if code == "stale":
        raise Superseded(f"Session {uuid} changed meanwhile ({detail}).")
    if code == "illegal":
        raise IllegalState(f"Session {uuid} is {detail}; it can't become {to} from there.")
    hashed = dict(zip(flat[::2], flat[1::2], strict=True))
    return Change(Record.from_hash(hashed), applied=code == "ok")


def number(value: float) -> str:
    """A time as the records hold it; a change that expects one compares texts."""
    return CODECS["created_at"][1](value)


def _expected(expect: Mapping[str, Any]) -> dict[str, str]:
    """What the hash holds where these fields are as they were seen; of the signals also that no other came."""
    plain = {name: _stored(name, value) for name, value in expect.items() if name != "signals"}
    if "signals" not in expect:
        return plain
    seen: Mapping[str, Signal] = expect["signals"]
    return plain | {SIGNAL_PREFIX + name: seen[name].to_text() if name in seen else "" for name in SIGNALS}


def _stored(name: str, value: Any) -> str:
    """What the hash holds for this value: nothing at all for a default."""
    text = CODECS[name][1](value)
    return "" if DEFAULTS.get(name) == text else text


def _shown(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in ("reason", "reason_code", "backup") and value}
