"""A full disk under the backups: nothing is lost, and the user is told."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service
from tests.waiting import wait_for


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True, timeout=30
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


def test_a_full_disk_fails_the_backup_keeps_everything_and_says_so(
    tmp_path: Path, small_disk: Path, code_server: str
) -> None:
    service = Service(tmp_path, code_server, BACKUP_URL=f"file://{small_disk}")
    service.start()
    try:
        uuid = service.create("ada")["uuid"]
        (service.files(uuid) / "small").write_text("kept")
        service.done("POST", f"/session/{uuid}/backup")
        older = wait_for(
            lambda: service.done("GET", f"/session/{uuid}/backups")["backups"], "the backup while there is room"
        )[0]

        content = os.urandom(8_000_000)
        (service.files(uuid) / "large").write_bytes(content)
        refused = service.call("DELETE", f"/session/{uuid}")
        assert refused.status_code == 409
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert "full" in refused.json()["detail"]
        failed = service.status(uuid)["session"]
        assert failed["status"] == "failed"
        assert "full" in failed["reason"]

        assert (service.files(uuid) / "large").read_bytes() == content
        assert service.done("GET", f"/session/{uuid}/backups")["backups"] == [older]
        zipped = service.call("GET", f"/backups/{older['name']}/download").content
        assert hashlib.sha256(zipped).hexdigest() == older["sha256"]
        assert sorted(path.name for path in small_disk.rglob("*") if ".part" in path.name) == []

        service.done("POST", f"/session/{uuid}/scale-up")
        (service.files(uuid) / "large").unlink()
        assert service.done("DELETE", f"/session/{uuid}")["status"] == "terminated"
        assert service.done("GET", f"/session/{uuid}/backups")["total"] == 2
    finally:
        service.stop()
