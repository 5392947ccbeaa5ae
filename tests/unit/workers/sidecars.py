"""The sidecars of the points of a runtime in memory, which the store has not."""

from __future__ import annotations

from app.core.backups.index import identity_fields
from app.core.restore_points.index import RestorePoint
from app.core.storage.archive_keys import ArchiveKeys
from tests.world import World
from workers.restore_points.repository import Head
from workers.restore_points.sidecar import Sidecar, Sidecars


def sidecars(world: World, uuid: str) -> Sidecars:
    return Sidecars(world.core.backup_store.files, ArchiveKeys(world.settings.archive_key).session(uuid))


def store_sidecar(world: World, point: RestorePoint) -> None:
    """Write the sidecar of a point that was made."""
    sidecar = Sidecar(
        id=point.id,
        uuid=point.uuid,
        created_at=point.created_at,
        trigger=point.trigger,
        message_id=point.message_id,
        files=point.files,
        size=point.size,
        stored=point.stored,
        fingerprint="",
        repository=1,
        snapshot="",
        identity=identity_fields(world.get(point.uuid).identity),
        head=Head.new(),
    )
    sidecars(world, point.uuid).write(sidecar)


def store_alone(world: World, uuid: str, number: int) -> str:
    """A point that only the store knows of; answers its id."""
    point = RestorePoint(
        id=f"p{number:015d}",
        uuid=uuid,
        created_at=world.now + number,
        trigger="interval",
        files=3,
        size=30,
        stored=3,
        message_id="m1",
    )
    store_sidecar(world, point)
    return point.id
