"""The sidecars of restore points, in the store: a point exists when its sidecar does, which is written last.

A sidecar is encrypted, as it names the user. It also holds the head of the point's repository, so that the damage of
two small files costs no points.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import ArchiveError
from app.core.restore_points.index import RestorePoint
from app.core.restore_points.names import ID_PATTERN
from app.core.storage.archive_keys import SessionKeys, UnknownKey
from app.core.storage.file_store import FileStore
from workers.restore_points.repository import Head, repositories

SUFFIX = ".json"
FAILED = "The store of restore points can't be used"


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """One point. Its files were read from `created_at` to `read_until` (s since the epoch); `files`, `size` and
    `stored` are as in `PointSummary`; `snapshot` is restic's id of it in the repository with that number. `unreadable`
    counts files that it lacks; `listed` says that a manifest was made."""

    id: str
    uuid: str
    created_at: float
    read_until: float = 0.0
    trigger: str
    message_id: str
    files: int
    size: int
    stored: int
    fingerprint: str
    repository: int
    snapshot: str
    identity: Mapping[str, Any]
    unreadable: int = 0
    listed: bool = False
    head: Head = field(repr=False)

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps({**vars(self), "identity": dict(self.identity), "head": self.head.to_document()}).encode()

    def point(self) -> RestorePoint:
        """The point as the index has it."""
        return RestorePoint(
            id=self.id,
            uuid=self.uuid,
            created_at=self.created_at,
            read_until=self.read_until,
            trigger=self.trigger,
            files=self.files,
            size=self.size,
            stored=self.stored,
            message_id=self.message_id,
            fingerprint=self.fingerprint,
            unreadable=self.unreadable,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Sidecar:
        """Raises `ArchiveError` for a malformed one."""
        try:
            told = json.loads(data)
            known = {name: told[name] for name in cls.__dataclass_fields__ if name in told}
            return cls(**{**known, "head": Head.of(told["head"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArchiveError("The sidecar of a restore point is malformed.") from error


@dataclass(frozen=True)
class Sidecars:
    """The sidecars of one session. Methods raise `RetryableError` when the store is unreachable, `ArchiveError` when it
    refuses, `UnknownKey`."""

    store: FileStore
    keys: SessionKeys

    @property
    def folder(self) -> str:
        return f"{self.store.root}/{self.keys.uuid}/points"

    def ids(self) -> list[str]:
        """The ids of all points, whole or broken; other files are no points."""
        with self.store.translated(FAILED):
            names = self.store.names(self.folder)
        return sorted(
            name.removesuffix(SUFFIX)
            for name in names
            if name.endswith(SUFFIX) and ID_PATTERN.fullmatch(name.removesuffix(SUFFIX))
        )

    def kept(self) -> int:
        """Bytes that the session's points keep in the store: its repositories, its sidecars and the manifest."""
        with self.store.translated(FAILED):
            beside = self.store.size(self.folder)
        return beside + sum(each.size() for each in repositories(self.store, self.keys.uuid))

    def read(self) -> dict[str, Sidecar | None]:
        """All points by id, the newest first; None, and last, for those whose sidecar is damaged."""
        paths = {f"{self.folder}/{each}{SUFFIX}": each for each in self.ids()}
        with self.store.translated(FAILED):
            contents = self.store.read_all(list(paths))
        found = {paths[path]: self._read(paths[path], content) for path, content in contents.items()}
        return dict(sorted(found.items(), key=lambda each: _age(each[1])))

    def write(self, sidecar: Sidecar) -> None:
        """Write it: now the point exists."""
        name = sidecar.id + SUFFIX
        with self.store.translated(FAILED):
            self.store.write(f"{self.folder}/{name}", self.keys.encrypt(sidecar.to_bytes(), name))
            self.store.sync(self.folder)

    def remove(self, point_id: str) -> None:
        """Remove it: now the point is gone."""
        with self.store.translated(FAILED):
            self.store.remove(f"{self.folder}/{point_id}{SUFFIX}")

    def _read(self, point_id: str, content: bytes) -> Sidecar | None:
        try:
            sidecar = Sidecar.from_bytes(self.keys.decrypt(content, point_id + SUFFIX))
        except UnknownKey:
            raise
        except ArchiveError:
            return None
        return sidecar if sidecar.id == point_id else None


def _age(sidecar: Sidecar | None) -> tuple[float, str]:
    """Sorts the newest first."""
    return (-sidecar.created_at, sidecar.id) if sidecar else (0.0, "")
