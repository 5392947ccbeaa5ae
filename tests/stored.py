"""What a local service has stored, as its own processes read it."""

from __future__ import annotations

from pathlib import Path

from app.core.backups.store import BackupStore
from app.core.storage.archive_keys import ArchiveKeys


def backups_of(data_dir: Path) -> BackupStore:
    """The backups of the service with this data folder, which keeps its archive key there."""
    key = data_dir / "archive-key"
    keys = ArchiveKeys(key.read_text().strip() if key.exists() else "")
    return BackupStore(f"file://{data_dir}/backups", keys)
