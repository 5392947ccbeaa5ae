"""Stores of objects for restore points.

At Google's everybody has the token of a Job, and asks for nothing beyond its access boundary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest

from app.core.storage.archive_keys import ArchiveKeys, new_key
from tests.integration import google_storage
from tests.integration.stores import BUCKET, point_at, server
from tests.ports import free_port
from tests.unit.workers.restore_points.conftest import UUID, Shelf


@contextmanager
def amazon(folder: Path, uuid: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    port = free_port()
    point_at("s3", port, monkeypatch)
    with server("s3", port, folder / "server.log"):
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield f"s3://{BUCKET}/backups"


STORES = {"s3": amazon, "gs": google_storage.running}


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shelf(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """A session whose restore points are in an object store."""
    client = fsspec.get_filesystem_class(kind)
    client.clear_instance_cache()
    with STORES[kind](tmp_path, UUID, monkeypatch) as url:
        made = Shelf(tmp_path / "volume", url, ArchiveKeys(new_key()).session(UUID))
        made.write("app/readme", "the project")
        yield made
    client.clear_instance_cache()
