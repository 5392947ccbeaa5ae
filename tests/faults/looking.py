"""What Redis says: all of it at one moment, and the events of every session as they come."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import redis

from app.core.prompts.inbox import MARKER, Prompt, State
from app.core.redis import keys
from app.core.restore_points.index import RestorePoint
from app.core.sessions.model import Record, Status

PAUSE = 0.2
"""s between two looks at the events."""

SLOTS = keys.POINT_SLOT.format(number="")

SETS = (
    keys.ALL,
    keys.INTENTS,
    keys.IDLE,
    keys.INBOX_PENDING,
    keys.BACKUP_REQUESTS,
    keys.DRILL_REQUESTS,
    keys.BACKUPS,
)
"""What a snapshot has of each: in this order."""


@dataclass(frozen=True)
class Event:
    """Of a session's stream. `at` is seconds since the epoch."""

    at: float
    type: str
    data: Mapping[str, Any]


class Events(threading.Thread):
    """Reads the events of sessions until `over`: a stream is cut short when its session falls asleep."""

    def __init__(self, connect: Callable[[], redis.Redis], uuids: Callable[[], Iterable[str]]) -> None:
        super().__init__(name="events", daemon=True)
        self.over = threading.Event()
        self._connect, self._uuids = connect, uuids
        self._seen: dict[str, list[Event]] = defaultdict(list)
        self._last: dict[str, str] = {}
        self._lock = threading.Lock()

    def of(self, uuid: str, kind: str = "") -> list[Event]:
        with self._lock:
            return [event for event in self._seen[uuid] if kind in ("", event.type)]

    def run(self) -> None:
        while not self.over.wait(PAUSE):
            with suppress(redis.RedisError, OSError, ValueError):
                self.read()

    def read(self) -> None:
        """Take in what has come since the last time."""
        with self._connect() as client:
            uuids = list(self._uuids())
            pipe = client.pipeline(transaction=False)
            for uuid in uuids:
                after = self._last.get(uuid)
                pipe.xrange(keys.EVENTS.format(uuid=uuid), f"({after}" if after else "-", "+")
            for uuid, entries in zip(uuids, pipe.execute(), strict=True):
                found = [_event(*entry) for entry in entries]
                with self._lock:
                    self._seen[uuid] += found
                if entries:
                    self._last[uuid] = entries[-1][0]


def _event(entry_id: str, entry: Mapping[str, str]) -> Event:
    return Event(int(entry_id.partition("-")[0]) / 1000, entry["type"], json.loads(entry["data"]))


@dataclass(frozen=True)
class Snapshot:
    """All of the service's state that is judged. `inbox`, `held` and `prompts` are ids by session, `messages` are by
    session and id."""

    records: Mapping[str, Record]
    by_status: Mapping[str, set[str]]
    everyone: set[str]
    by_user: Mapping[str, set[str]]
    intents: set[str]
    idle: set[str]
    pending: set[str]
    requests: set[str]
    drills: set[str]
    backups: set[str]
    letters: list[str]
    leases: set[str]
    inbox: Mapping[str, list[str]] = field(default_factory=dict)
    held: Mapping[str, list[str]] = field(default_factory=dict)
    prompts: Mapping[str, list[str]] = field(default_factory=dict)
    messages: Mapping[tuple[str, str], Prompt] = field(default_factory=dict)
    points: Mapping[str, list[str]] = field(default_factory=dict)
    """The ids of the restore points that are not broken."""

    def of_drills(self) -> set[str]:
        """The leases that drills may have, which come at any time."""
        slots = {name for name in self.leases if name.startswith(SLOTS)} if self.drills else set()
        return slots | {keys.BACKUP_LEASE.format(uuid=uuid) for uuid in self.drills}


def snapshot(client: redis.Redis, prefix: str = "") -> Snapshot:
    """Everything as it is, but the sessions of users that have not this prefix; what changes meanwhile is seen half,
    and right the next time."""
    sessions = [name for name in client.keys("session:????????") if client.type(name) == "hash"]
    uuids = [name.partition(":")[2] for name in sessions]
    names = client.keys("message:*")
    users = client.keys(keys.BY_USER.format(user_id="*"))
    pipe = client.pipeline(transaction=True)
    for name in [*sessions, *(keys.USE.format(uuid=uuid) for uuid in uuids), *names]:
        pipe.hgetall(name)
    for uuid in uuids:
        for key in (keys.INBOX, keys.HELD, keys.PROMPTS):
            pipe.lrange(key.format(uuid=uuid), 0, -1)
        pipe.hvals(keys.POINTS.format(uuid=uuid))
    for name in users:
        pipe.zrange(name, 0, -1)
    for status in Status:
        pipe.zrange(keys.BY_STATUS.format(status=status), 0, -1)
    for name in SETS:
        pipe.zrange(name, 0, -1)
    pipe.lrange(keys.DEAD_LETTERS, 0, -1)
    pipe.keys("lease:*")
    answers = iter(pipe.execute())
    hashes = [next(answers) for _ in sessions]
    noted = [next(answers) for _ in sessions]
    found = [next(answers) for _ in names]
    lists = {uuid: [next(answers) for _ in range(4)] for uuid in uuids}
    by_user = {name.removeprefix("user:").removesuffix(":sessions"): set(next(answers)) for name in users}
    by_status = {str(status): set(next(answers)) for status in Status}
    everyone, intents, idle, pending, requests, drills, backups = (set(next(answers)) for _ in SETS)
    seen = Snapshot(
        records={
            record.uuid: record
            for record in (Record.from_hash(*both) for both in zip(hashes, noted, strict=True) if both[0])
        },
        by_status=by_status,
        everyone=everyone,
        by_user=by_user,
        intents=intents,
        idle=idle,
        pending=pending,
        requests=requests,
        drills=drills,
        backups=backups,
        letters=next(answers),
        leases=set(next(answers)),
        inbox={uuid: [name for name in each[0] if name != MARKER] for uuid, each in lists.items()},
        held={uuid: each[1] for uuid, each in lists.items()},
        prompts={uuid: each[2] for uuid, each in lists.items()},
        messages={
            _whose(name): Prompt.from_hash(_whose(name)[1], hashed)
            for name, hashed in zip(names, found, strict=True)
            if hashed
        },
        points={
            uuid: [point.id for point in map(RestorePoint.from_text, each[3]) if not point.broken]
            for uuid, each in lists.items()
        },
    )
    return without_others(seen, prefix) if prefix else seen


def without_others(seen: Snapshot, prefix: str) -> Snapshot:
    """The same as if there were only the sessions of users with this prefix. Backups and letters of sessions whose
    records are gone are others'."""
    own = {uuid: record for uuid, record in seen.records.items() if record.user_id.startswith(prefix)}
    others = seen.records.keys() - own.keys()
    return replace(
        seen,
        records=own,
        by_status={status: uuids - others for status, uuids in seen.by_status.items()},
        everyone=seen.everyone - others,
        by_user={user: uuids for user, uuids in seen.by_user.items() if user.startswith(prefix)},
        intents=seen.intents - others,
        idle=seen.idle - others,
        pending=seen.pending - others,
        requests=seen.requests - others,
        drills=seen.drills - others,
        backups={name for name in seen.backups if any(f"app-{uuid}-" in name for uuid in own)},
        letters=[letter for letter in seen.letters if any(uuid in letter for uuid in own)],
        leases={name for name in seen.leases if name.split(":")[1] not in others},
    )


def _whose(name: str) -> tuple[str, str]:
    _, uuid, message_id = name.split(":", 2)
    return uuid, message_id


UNFINISHED = (State.QUEUED, State.DELIVERED)
