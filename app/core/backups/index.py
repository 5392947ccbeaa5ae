"""The index of backups in Redis, and which of them may be deleted.

A backup enters the index when it is made, and leaves it when it is deleted. The sidecars in the store hold the same.
One that was stored while Redis was away is added by the session's next backup, or by a look of a sweep at the whole
store: once a day, at the service's start, and after Redis was lost.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast

import redis

from app.core.backups.store import NAME_PATTERN
from app.core.errors import ArchiveError, BackupInUse, BackupNotFound, BackupRetired
from app.core.redis import keys
from app.core.redis.errors import redis_errors
from app.core.redis.paging import Page, newest_first, page_of
from app.core.redis.scripts import Script, flatten
from app.core.sessions.model import Identity

log = logging.getLogger(__name__)

MOST_OF_A_SESSION = 1_000
"""Backups of one session searched for its newest complete one."""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """One verified backup. `created_at` is seconds since the epoch, `size` bytes of the zip,
    `content_bytes` of the files in it, `files` counts files and links, `changed` names some of the
    files that changed while they were read. A backup that is not `complete` lacks unreadable files, of which
    `unreadable` names some. `origin` is the session's identity at that time."""

    name: str
    uuid: str
    user_id: str
    created_at: float
    size: int
    files: int
    content_bytes: int
    sha256: str
    verified: bool
    origin: Identity
    changed: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    complete: bool = True

    @classmethod
    def from_sidecar(cls, sidecar: Mapping[str, Any]) -> Backup:
        """The backup a sidecar describes; raises `ArchiveError` for a malformed one."""
        try:
            return cls(
                name=str(sidecar["name"]),
                uuid=str(sidecar["uuid"]),
                user_id=str(sidecar["user_id"]),
                created_at=float(sidecar["created_at"]),
                size=int(sidecar["size"]),
                files=int(sidecar["files"]),
                content_bytes=int(sidecar["content_bytes"]),
                sha256=str(sidecar["sha256"]),
                verified=bool(sidecar["verified"]),
                origin=read_identity(sidecar["identity"]),
                changed=tuple(str(path) for path in sidecar["changed"]),
                unreadable=tuple(str(path) for path in sidecar["unreadable"]),
                complete=bool(sidecar["complete"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArchiveError(f"The sidecar of {sidecar.get('name', 'a backup')} is malformed.") from error

    def to_hash(self) -> dict[str, str]:
        """The Redis hash: numbers as text, flags as 0 or 1, the rest as JSON."""
        lacking = {} if self.complete else {"complete": "0", "unreadable": json.dumps(self.unreadable)}
        return {
            "name": self.name,
            "uuid": self.uuid,
            "user_id": self.user_id,
            "created_at": repr(self.created_at),
            "size": str(self.size),
            "files": str(self.files),
            "content_bytes": str(self.content_bytes),
            "sha256": self.sha256,
            "verified": "1" if self.verified else "0",
            "identity": json.dumps(identity_fields(self.origin), sort_keys=True),
            "changed": json.dumps(self.changed),
            **lacking,
        }

    @classmethod
    def from_hash(cls, hashed: Mapping[str, str]) -> Backup:
        """The backup in a Redis hash."""
        values: dict[str, Any] = dict(hashed)
        values["identity"] = json.loads(hashed["identity"])
        values["changed"] = json.loads(hashed["changed"])
        values["verified"] = hashed["verified"] == "1"
        values["complete"] = hashed.get("complete", "1") == "1"
        values["unreadable"] = json.loads(hashed.get("unreadable", "[]"))
        return cls.from_sidecar(values)


def identity_fields(identity: Identity) -> dict[str, Any]:
    """An identity for JSON."""
    fields = {name: value for name, value in asdict(identity).items() if name in IDENTITY_FIELDS}
    counts = {"volume", "rollbacks"}
    return {name: value for name, value in fields.items() if value or name not in counts}


def read_identity(values: Mapping[str, Any]) -> Identity:
    """The identity in such a mapping; fields of later releases are ignored."""
    return Identity(**{name: value for name, value in values.items() if name in IDENTITY_FIELDS})


Keep = Literal["", "living", "any"]

IDENTITY_FIELDS = frozenset(field.name for field in fields(Identity))


class BackupIndex:
    """The index. Needs a client with `decode_responses=True`; every method raises `StateUnavailable`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._index, self._unindex, self._retire = (Script(client, name) for name in ("index", "unindex", "retire"))

    @redis_errors
    def add(self, backup: Backup) -> None:
        """Put a backup into the index. Raises `BackupRetired` while one of that name is being deleted."""
        sets = [keys.BACKUPS, _session_backups(backup.uuid), keys.USER_BACKUPS.format(user_id=backup.user_id)]
        added = self._index(
            retired=keys.RETIRED,
            backup=keys.BACKUP.format(name=backup.name),
            session=keys.SESSION.format(uuid=backup.uuid),
            sets=sets,
            name=backup.name,
            created_at=repr(backup.created_at),
            uuid=backup.uuid,
            user_id=backup.user_id,
            kib=-(-backup.size // 1024),
            fields=flatten(backup.to_hash()),
        )
        if not added:
            raise BackupRetired(backup.name)

    def get(self, name: str) -> Backup:
        """One backup, or `BackupNotFound`."""
        if not NAME_PATTERN.fullmatch(name):
            raise BackupNotFound(name)
        found = self._records([name])
        if not found:
            raise BackupNotFound(name)
        return found[0]

    @redis_errors
    def page(
        self,
        *,
        user_id: str | None = None,
        uuid: str | None = None,
        user_prefix: str = "",
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[Backup]:
        """Backups, newest first: all, of a user, of a session, or of users whose name begins with `user_prefix`. Raises
        `InvalidRequest` for a foreign cursor.

        Filters without an index of their own read the records one by one.
        """
        key = keys.BACKUPS if user_id is None else keys.USER_BACKUPS.format(user_id=user_id)
        if uuid is not None:
            key = keys.SESSION_BACKUPS.format(uuid=uuid)
        if user_prefix or (uuid is not None and user_id is not None):
            found = [
                backup
                for backup in self._records(cast("list[str]", self._redis.zrange(key, 0, -1)))
                if backup.user_id.startswith(user_prefix) and user_id in (None, backup.user_id)
            ]
            return page_of(found, lambda backup: (backup.created_at, backup.name), limit=limit, cursor=cursor)
        return newest_first(self._redis, key, limit=limit, cursor=cursor).map(self._records)

    @redis_errors
    def delete(self, name: str) -> None:
        """Take a backup out of the index, if it is there."""
        self._unindex(**_names(name))

    @redis_errors
    def retire(self, name: str, now: float, *, keep: Keep = "") -> bool:
        """Take a backup out of the index before its files are deleted; False when there is none. The caller deletes the
        files, then calls `files_deleted`.

        Checking and taking out are one step. Raises `BackupInUse` while a session is to be restored from it, while its
        own session is being deleted with this backup as the last, and for what `keep` protects: the newest backup of a
        "living" session, or of "any"."""
        answer = self._retire(**_names(name), retired=keys.RETIRED, in_use=keys.IN_USE, now=repr(now), protect=keep)
        if answer == "in_use":
            raise BackupInUse(
                f"Backup {name} is in use: a session is being restored from it, or its own session is being deleted."
            )
        if answer == "newest":
            raise BackupInUse(f"Backup {name} is the newest one of a session that still exists.")
        return cast(bool, answer == "retired")

    @redis_errors
    def files_deleted(self, name: str) -> None:
        """Note that the files of a retired backup are deleted."""
        self._redis.zrem(keys.RETIRED, name)

    @redis_errors
    def retired(self) -> dict[str, float]:
        """The backups whose files are being deleted, and since when (seconds since the epoch)."""
        return dict(cast("list[tuple[str, float]]", self._redis.zrange(keys.RETIRED, 0, -1, withscores=True)))

    @redis_errors
    def looked_at(self) -> float | None:
        """When the last whole look at the store began (seconds since the epoch), None where this Redis knows none."""
        noted = self._redis.get(keys.STORE_LOOKED)
        return None if noted is None else float(cast(str, noted))

    @redis_errors
    def note_look(self, begun: float) -> None:
        """Note a whole look at the store: the index has all backups that were stored when it began."""
        self._redis.set(keys.STORE_LOOKED, repr(begun))

    @redis_errors
    def older_than(self, when: float) -> list[Backup]:
        """The backups made before `when` (seconds since the epoch), oldest first."""
        names = cast("list[str]", self._redis.zrangebyscore(keys.BACKUPS, "-inf", f"({when!r}"))
        return self._records(names)

    @redis_errors
    def unknown(self, names: Sequence[str]) -> list[str]:
        """The names among these that are neither in the index nor being deleted."""
        if not names:
            return []
        with self._redis.pipeline(transaction=True) as read:
            for key in (keys.BACKUPS, keys.RETIRED):
                read.zmscore(key, list(names))
            scores = read.execute()
        return [name for name, *found in zip(names, *scores, strict=True) if found == [None, None]]

    def newest_of(self, uuid: str, before: float = math.inf) -> Backup | None:
        """The session's newest complete backup from before this time (seconds since the epoch), else its newest, else
        None."""
        found = [each for each in self.page(uuid=uuid, limit=MOST_OF_A_SESSION).items if each.created_at < before]
        return next((backup for backup in found if backup.complete), next(iter(found), None))

    @redis_errors
    def count(self) -> int:
        """The number of backups."""
        return cast(int, self._redis.zcard(keys.BACKUPS))

    @redis_errors
    def _records(self, names: Iterable[str]) -> list[Backup]:
        with self._redis.pipeline(transaction=False) as read:
            for name in names:
                read.hgetall(keys.BACKUP.format(name=name))
            hashes = read.execute()
        return [Backup.from_hash(hashed) for hashed in hashes if hashed]


def _session_backups(uuid: str) -> str:
    return keys.SESSION_BACKUPS.format(uuid=uuid)


def _names(name: str) -> dict[str, str]:
    """What the scripts that remove a backup from the index take of it. Raises `BackupNotFound` for no name of one."""
    match = NAME_PATTERN.fullmatch(name)
    if not match:
        raise BackupNotFound(name)
    uuid = match["uuid"]
    return {
        "backups": keys.BACKUPS,
        "session_backups": _session_backups(uuid),
        "backup": keys.BACKUP.format(name=name),
        "session": keys.SESSION.format(uuid=uuid),
        "name": name,
        "uuid": uuid,
        "user_backups": keys.USER_BACKUPS.format(user_id="%s"),
    }
