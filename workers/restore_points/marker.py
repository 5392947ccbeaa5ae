"""The marker of an archived session, beside its restore points: what its record needs if Redis is lost.

A workspace keeps its identity beside its volume; an archived session has none. The marker is encrypted, as it names the
user. It is written before the volume goes, and removed once there is one again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from app.core.backups.index import identity_fields, read_identity
from app.core.errors import ArchiveError
from app.core.restore_points.index import RestorePoint
from app.core.restore_points.names import reference
from app.core.sessions.model import Identity, Record
from app.core.storage.archive_keys import SessionKeys
from app.core.storage.file_store import FileStore
from workers.restore_points.sidecar import Sidecar

NAME = "archived.json"
FAILED = "The marker of an archived session can't be used"


@dataclass(frozen=True, kw_only=True)
class Marker:
    """An archived session: `identity.restore_from` refers to its `point`. The other fields are as in `Record`."""

    identity: Identity
    point: RestorePoint
    made_by: str
    generation: int
    epoch: int
    access_epoch: int
    last_activity: float
    archived_at: float
    files_of: float = 0.0

    @classmethod
    def of(cls, record: Record, source: str, point: RestorePoint, now: float) -> Marker:
        """That of a session whose files are in `point`, to which `source` refers."""
        identity = Identity(**{**vars(record.identity), "restore_from": source})
        same = {
            name: getattr(record, name) for name in ("made_by", "generation", "epoch", "access_epoch", "last_activity")
        }
        return cls(identity=identity, point=point, archived_at=record.archived_at or now, **same)

    @classmethod
    def of_lost(cls, sidecar: Sidecar, now: float) -> Marker:
        """That of a session of which the store alone is left, with this newest restore point. It counts as used now,
        and its other counts go on from a number that none had reached. Raises `ArchiveError` for a malformed
        identity."""
        try:
            identity = read_identity(sidecar.identity)
        except (TypeError, AttributeError) as error:
            raise ArchiveError("The sidecar of a restore point names no session.") from error
        return cls(
            identity=replace(identity, restore_from=reference(sidecar.uuid, sidecar.id)),
            point=sidecar.point(),
            made_by="",
            generation=int(now),
            epoch=int(now),
            access_epoch=int(now),
            last_activity=now,
            archived_at=sidecar.created_at,
            files_of=sidecar.created_at,
        )

    def to_bytes(self) -> bytes:
        """As JSON."""
        document = {**vars(self), "identity": identity_fields(self.identity), "point": asdict(self.point)}
        return json.dumps(document).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Marker:
        """Raises `ArchiveError` for a malformed one."""
        try:
            told = json.loads(data)
            known = {name: told[name] for name in cls.__dataclass_fields__}
            point = RestorePoint.from_text(json.dumps(told["point"]))
            return cls(**{**known, "identity": read_identity(told["identity"]), "point": point})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArchiveError("The marker of an archived session is malformed.") from error


@dataclass(frozen=True)
class Markers:
    """The marker of one session. Methods raise `RetryableError` when the store is unreachable, `ArchiveError` when it
    refuses or the marker is damaged, `UnknownKey`."""

    store: FileStore
    keys: SessionKeys

    @property
    def folder(self) -> str:
        return f"{self.store.root}/{self.keys.uuid}"

    @property
    def path(self) -> str:
        return f"{self.folder}/{NAME}"

    def read(self) -> Marker | None:
        """The marker, None for none."""
        with self.store.translated(FAILED):
            try:
                content = self.store.read(self.path)
            except FileNotFoundError:
                return None
        return self.decrypted(content)

    def decrypted(self, content: bytes) -> Marker:
        """The marker in this content of its file."""
        marker = Marker.from_bytes(self.keys.decrypt(content, NAME))
        if marker.identity.uuid != self.keys.uuid:
            raise ArchiveError(f"The marker of the archived session {self.keys.uuid} is of another session.")
        return marker

    def write(self, marker: Marker) -> None:
        """Write it, in place of an older one."""
        with self.store.translated(FAILED):
            self.store.write(self.path, self.keys.encrypt(marker.to_bytes(), NAME))
            self.store.sync(self.folder)

    def remove(self) -> None:
        """Remove it, if there is one."""
        with self.store.translated(FAILED):
            self.store.remove(self.path)
            self.store.sync(self.folder)
