"""What a restore brings, told when it begins: people and products that wait see how much there is to wait for."""

from __future__ import annotations

from typing import Any

from app.core.composition import Core
from app.core.errors import BackupNotFound
from app.core.restore_points.names import parse
from app.core.sessions.model import iso


def to_restore(core: Core, source: str) -> dict[str, Any]:
    """How many `files` and `bytes` a restore point or a backup has, and `of` when it is; {} of one that is in no
    index. Raises `StateUnavailable`."""
    if named := parse(source):
        point = core.restore_points.get(*named)
        return {"files": point.files, "bytes": point.size, "of": iso(point.created_at)} if point else {}
    try:
        backup = core.backups.get(source)
    except BackupNotFound:
        return {}
    return {"files": backup.files, "bytes": backup.content_bytes, "of": iso(backup.created_at)}
