"""Attempts at an intent: one worker at a time works on a session, and the record counts each attempt.

Every change of an attempt expects the record's count (`Record.lease`), so those of a worker that lost its lease without
noticing fail. Outside Redis the generation protects a session (workers/runtime/base.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from app.core.redis import keys
from app.core.redis.leases import Leases
from app.core.redis.scripts import Script, pairs
from app.core.sessions.model import Record

MAX_ATTEMPTS = 5
"""Attempts after which a task is a dead letter: each failed, or took its worker with it."""


class Attempts:
    """Begins attempts. Every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis, leases: Leases) -> None:
        self._leases = leases
        self._begin = Script(client, "begin")

    @contextmanager
    def begin(self, uuid: str, generation: int) -> Iterator[Record | None]:
        """An attempt at the intent `generation`: holds the session's lease for the block and yields the record, which
        counts the attempt. None when the intent is not the newest, is settled, or another worker holds the lease."""
        with self._attempt(uuid, keys.LEASE, str(generation)) as record:
            yield record

    @contextmanager
    def begin_backup(self, uuid: str) -> Iterator[Record | None]:
        """An attempt at a requested backup, under a lease of its own; None when no backup is requested."""
        with self._attempt(uuid, keys.BACKUP_LEASE, "", keys.BACKUP_REQUESTS, "backup_tries") as record:
            yield record

    @contextmanager
    def begin_point(self, uuid: str) -> Iterator[Record | None]:
        """The same of a requested restore point, under the backups' lease: both read all files."""
        with self._attempt(uuid, keys.BACKUP_LEASE, "", keys.POINT_REQUESTS, "point_tries") as record:
            yield record

    @contextmanager
    def begin_drill(self, uuid: str) -> Iterator[Record | None]:
        """The same of a requested drill, under the backups' lease: no point is made, and nothing pruned, meanwhile."""
        with self._attempt(uuid, keys.BACKUP_LEASE, "", keys.DRILL_REQUESTS, "drill_tries") as record:
            yield record

    @contextmanager
    def _attempt(
        self, uuid: str, key: str, generation: str, requests: str = keys.BACKUP_REQUESTS, tries: str = "tries"
    ) -> Iterator[Record | None]:
        begun: list[Record] = []

        def take(name: str, token: bytes, ttl: int) -> bool:
            code, flat = self._begin(
                session=keys.SESSION.format(uuid=uuid),
                lease=name,
                requests=requests,
                uuid=uuid,
                generation=generation,
                token=token,
                ttl=ttl,
                tries=tries,
            )
            if code == "ok":
                begun.append(Record.from_hash(pairs(flat)))
            return bool(begun)

        with self._leases.hold(key.format(uuid=uuid), take):
            yield begun[0] if begun else None
