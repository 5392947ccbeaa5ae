"""What is backed up, and where to."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.core.backups.store import BackupStore


@pytest.fixture
def store(tmp_path: Path) -> BackupStore:
    return BackupStore(f"file://{tmp_path}/store")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder a user sees."""
    folder = tmp_path / "app"
    folder.mkdir()
    return folder
