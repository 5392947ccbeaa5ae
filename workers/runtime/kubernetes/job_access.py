"""What a Job must be able to do in an object store, by the kind of its work: nothing beyond one session."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.backups.store import SIDECAR_SUFFIX, session_of
from app.core.restore_points import names as points


@dataclass(frozen=True)
class Access:
    """Access to what lies at `paths` below the store's URL: each is a folder, which ends in a slash, or a file."""

    paths: tuple[str, ...]
    may_write: bool

    def below(self, root: str) -> tuple[str, ...]:
        """The paths as keys of the bucket, where the store's URL has the path `root` in it, "" for none."""
        return tuple(f"{root}/{path}" if root else path for path in self.paths)


def making(uuid: str) -> Access:
    """To make a session's backup or restore point: to its folder."""
    return Access((f"{uuid}/",), may_write=True)


def proving(uuid: str) -> Access:
    """To prove a session's restore point: to its folder, only to read."""
    return Access((f"{uuid}/",), may_write=False)


def reading(name: str) -> Access:
    """To restore or serve that backup: to its two files. Who restores a restore point locks its repository, and adds a
    key file after a rotation of the archive key: to the folder of its session. Raises `BackupNotFound` for an invalid
    name."""
    if point := points.parse(name):
        return making(point[0])
    path = f"{session_of(name)}/{name}"
    return Access((path, path + SIDECAR_SUFFIX), may_write=False)
